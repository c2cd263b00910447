/** A message of a user's, as the server takes it and shows it. */

/** @typedef {{text: string, files: import("./attachments.js").Attached[]}} Message */

/** @param {Message} message @returns {import("./client/lib/index.js").ContentPart[]} */
export function written({ text, files }) {
  const parts = files.map(({ id, isImage }) =>
    isImage
      ? { type: /** @type {const} */ ("input_image"), file_id: id }
      : { type: /** @type {const} */ ("input_file"), file_id: id },
  );
  return text === "" && parts.length > 0 ? parts : [{ type: "input_text", text }, ...parts];
}

/** @param {any[]} content As the server shows it. @returns {Message} */
export function read(content) {
  const files = content.flatMap(({ type, unbroken: file }) =>
    file === undefined ? [] : [{ id: file.file_id, name: file.filename, isImage: type === "input_image" }],
  );
  const texts = content.filter((part) => part.unbroken === undefined).map((part) => part.text ?? "");
  return { text: texts.join(""), files };
}
