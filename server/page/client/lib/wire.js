/** What goes over the wire, as far as this client reads or writes it. `docs/protocol.md` has the whole. */
export {};
