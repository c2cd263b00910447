/** What is about to be sent along with a message: uploaded as soon as it is chosen, shown until it is sent. */

import { button, element, make } from "./elements.js";

/**
 * A file that the server has.
 *
 * @typedef {object} Attached
 * @property {string} id
 * @property {string} name
 * @property {boolean} isImage
 */

const MOST = 10;

export class Attachments {
  /**
   * @param {object} options
   * @param {() => string} options.key What to present as an API key.
   * @param {() => string | null} options.token What the session is resumed with: it lends weight to a key that
   *   was good for that session alone.
   * @param {(text: string) => void} options.notice
   */
  constructor({ key, token, notice }) {
    this.#key = key;
    this.#token = token;
    this.#notice = notice;
  }

  #key;
  #token;
  #notice;
  #list = element("attachments");
  /** @type {Map<HTMLElement, {attached: Attached | null, abort: AbortController}>} By what shows it; null: on its way. */
  #chips = new Map();

  /** @type {Promise<string | null>} The picture that was asked for last. */
  #loading = Promise.resolve(null);

  get size() {
    return this.#chips.size;
  }

  get isUploading() {
    return [...this.#chips.values()].some(({ attached }) => attached === null);
  }

  /** @param {Iterable<File>} files */
  add(files) {
    for (const file of files) {
      if (this.size >= MOST) return this.#notice(`A message takes up to ${MOST} files here.`);
      this.#upload(file);
    }
  }

  /** @param {Attached[]} files What was taken, and comes back. */
  restore(files) {
    for (const attached of files) {
      const chip = this.#show(attached.name, "ready");
      this.#chips.set(chip, { attached, abort: new AbortController() });
    }
  }

  /** @returns {Attached[]} All that is there; it is forgotten here. */
  take() {
    const taken = [...this.#chips.values()].flatMap(({ attached }) => attached ?? []);
    this.clear();
    return taken;
  }

  clear() {
    for (const chip of this.#chips.keys()) this.#remove(chip);
  }

  /** @param {string} id @returns {Promise<string | null>} An address for `img`, of this page alone; null: it is gone. */
  picture(id) {
    // One by one: the server takes only so many at once from one user.
    this.#loading = this.#loading.then(() => this.#load(id));
    return this.#loading;
  }

  /** @param {string} id @returns {Promise<string | null>} */
  async #load(id) {
    try {
      const answer = await this.#fetch(`/v1/files/${encodeURIComponent(id)}/content`);
      return answer.ok ? URL.createObjectURL(await answer.blob()) : null;
    } catch {
      return null;
    }
  }

  /** @param {File} file */
  async #upload(file) {
    const chip = this.#show(file.name, "uploading");
    const abort = new AbortController();
    this.#chips.set(chip, { attached: null, abort });
    try {
      const made = await this.#send(file, abort.signal);
      if (!this.#chips.has(chip)) return;
      const isImage = made.unbroken.media_type.startsWith("image/");
      this.#chips.set(chip, { attached: { id: made.id, name: made.filename, isImage }, abort });
      chip.dataset.status = "ready";
      if (isImage) chip.prepend(thumbnail(URL.createObjectURL(file), ""));
    } catch (error) {
      if (!this.#chips.has(chip)) return; // it was taken back
      this.#remove(chip);
      this.#notice(`${file.name}: ${error instanceof Refused ? error.message : "It couldn't be uploaded. Try again."}`);
    }
  }

  /** @param {string} name @param {"uploading" | "ready"} status */
  #show(name, status) {
    const chip = make("li", "chip");
    chip.append(make("span", "name", name), button("Remove", () => this.#remove(chip)));
    chip.dataset.status = status;
    this.#list.append(chip);
    return chip;
  }

  /** @param {File} file @param {AbortSignal} signal @returns {Promise<any>} */
  async #send(file, signal) {
    const body = new FormData();
    body.append("purpose", "user_data");
    body.append("file", file, file.name);
    const answer = await this.#fetch("/v1/files", { method: "POST", body, signal });
    const said = await answer.json();
    if (!answer.ok) throw new Refused(said.error.message);
    return said;
  }

  /** @param {string} path @param {RequestInit} [options] */
  #fetch(path, options = {}) {
    const token = this.#token();
    const address = token === null ? path : `${path}?resume=${encodeURIComponent(token)}`;
    return fetch(address, { ...options, headers: { authorization: `Bearer ${this.#key()}` } });
  }

  /** @param {HTMLElement} chip */
  #remove(chip) {
    this.#chips.get(chip)?.abort.abort();
    this.#chips.delete(chip);
    chip.remove();
  }
}

class Refused extends Error {}

/** @param {string} url Of this page alone. @param {string} name @returns {HTMLImageElement} */
export function thumbnail(url, name) {
  const image = make("img", "thumbnail");
  const forget = () => URL.revokeObjectURL(url);
  image.addEventListener("load", forget);
  image.addEventListener("error", forget);
  image.alt = name;
  image.src = url;
  return image;
}
