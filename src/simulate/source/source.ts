/** The public face of the simulated directories that a connector pulls from. */
export { type EntraSource, type EntraSourceOptions, startEntra } from './entra/entra.ts';
export { type Mischief, type MischiefInput, openMischief, readMischief } from './mischief.ts';
export { type OktaSource, type OktaSourceOptions, startOkta } from './okta/okta.ts';
export { type Operation, operate } from './operation.ts';
export {
  type Entry,
  oktaIdOf,
  openPopulation,
  operateAtRandom,
  type Population,
  type PopulationOptions,
  type State,
  type User,
  uuidOf,
} from './population.ts';
export {
  type Answer,
  type Page,
  type Source,
  type SourceOptions,
  type SourceRequest,
  serveSource,
} from './server.ts';
