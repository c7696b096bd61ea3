/** What a person can mend, as one sentence. */
export class Mistake extends Error {}
