/** The rooms' SQL functions, in the order in which the migrate step creates them. */
import { directoryFunctions } from '../directory/directory.ts';
import { loginFunctions } from '../directory/login.ts';
import { pulledFunctions } from '../directory/pulled.ts';
import { lifecycleFunctions } from '../lifecycle/lifecycle.ts';
import { pullFunctions } from '../pull/statements.ts';
import { reconcileFunctions } from '../reconcile/reconcile.ts';
import { sessionFunctions } from '../session/statements.ts';

export const functions: readonly URL[] = [
  directoryFunctions,
  pulledFunctions,
  loginFunctions,
  sessionFunctions,
  lifecycleFunctions,
  pullFunctions,
  reconcileFunctions,
];
