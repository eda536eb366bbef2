// How often something happens, and how long it takes, over the last moments.

const MOMENTS = 30;

export class Rate {
  constructor() { this.times = []; this.delays = []; }

  note(delay = 0) {
    for (const [list, value] of [[this.times, performance.now()], [this.delays, delay]])
      if (list.push(value) > MOMENTS) list.shift();
  }

  get perSecond() {
    const { times } = this, span = times.at(-1) - times[0];
    return span > 0 ? 1000 * (times.length - 1) / span : 0;
  }

  // The median, in ms.
  get delay() {
    return Math.round(this.delays.toSorted((a, b) => a - b)[this.delays.length >> 1] ?? 0);
  }

  toString() { return this.perSecond.toFixed(this.perSecond < 10 ? 1 : 0); }
}
