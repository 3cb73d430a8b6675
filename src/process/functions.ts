/** The rooms' SQL functions, in the order in which the migrate step creates them. */
import { directoryFunctions } from '../directory/directory.ts';
import { pulledFunctions } from '../directory/pulled.ts';
import { lifecycleFunctions } from '../lifecycle/lifecycle.ts';
import { pullFunctions } from '../pull/statements.ts';
import { reconcileFunctions } from '../reconcile/reconcile.ts';

export const functions: readonly URL[] = [
  directoryFunctions,
  pulledFunctions,
  lifecycleFunctions,
  pullFunctions,
  reconcileFunctions,
];
