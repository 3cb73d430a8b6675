/** The SQL of src/session; functions stand in session.sql. */

/** Functions of this room, for the migrate step. */
export const sessionFunctions = new URL('session.sql', import.meta.url);
