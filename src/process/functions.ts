/** The rooms' SQL functions, in the order in which the migrate step creates them. */
import { directoryFunctions } from '../directory/directory.ts';
import { lifecycleFunctions } from '../lifecycle/lifecycle.ts';

export const functions: readonly URL[] = [directoryFunctions, lifecycleFunctions];
