/** A statement that PostgreSQL gave up for another one's sake. */

/** Two writers of several rows may wait for each other, and one is told to retry: nothing of it was written. */
export async function retryDeadlock<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if ((error as { code?: string }).code !== '40P01' || attempt >= 4) throw error;
    }
  }
}
