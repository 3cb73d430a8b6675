/** The rooms' SQL functions, in the order in which the migrate step creates them. */
import { directoryFunctions } from '../directory/directory.ts';

export const functions: readonly URL[] = [directoryFunctions];
