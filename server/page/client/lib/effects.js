/** What a core is given, what it wants done, and what is kept of it: its words with the shell around it. */
export {};
