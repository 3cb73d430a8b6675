/** One thing that must hold at the end, and where it does not. */
export interface Check {
  name: string;
  /** What was looked at, with figures. */
  words: string;
  /** Each violation in words; empty when it holds. */
  violations: string[];
}
