// The second result beside the page's own: who belongs to whom, where it is drawn, how far it is away.

const DISTANCES = { name: "Distance of the two results", unit: "mm", digits: 1 };

class Second {
  constructor(source) {
    this.source = source;
    this.begin(0);
    // Where the file has it, unless that is out of sight.
    const apart = [];
    this.partners.forEach((q, p) => {
      for (const f of q < 0 ? [] : commonFrames(first, p, this.result, q)) {
        const [a, b] = [first.place(p, f, 0), this.result.place(q, f, 0)];
        apart.push(Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
      }
    });
    this.placing = apart.sort((a, b) => a - b)[apart.length >> 1] > data.radius ? "root" : "own";
  }

  // later: seconds after this page's first frame.
  begin(later) {
    this.later = later;
    this.result = resampled(this.source, times, later);
    this.partners = matched(first, this.result); // of each person; -1: none
    this.distances = this.partners.map((q, p) => this.measured(p, q));
  }

  measured(p, q) { return q < 0 ? null : distances(first, p, this.result, q); }

  // The reader joins two people; who was with q before gets the one who was with p.
  join(p, q) {
    const other = this.partners.indexOf(q);
    if (q >= 0 && other >= 0) this.partners[other] = this.partners[p];
    this.partners[p] = q;
    for (const one of [p, other]) if (one >= 0) this.distances[one] = this.measured(one, this.partners[one]);
  }

  present(f) { return Array.from({ length: this.result.P }, (_, q) => q).filter(q => this.result.present(q, f)); }

  // What a Room draws in a frame.
  inRoom(f) {
    return this.present(f).map(q => {
      const p = this.partners.indexOf(q), own = this.placing === "own" || p < 0 || !first.present(p, f);
      const put = this.placing === "root" ? rootOnRoot : bestFit;
      const way = own ? null : put(first.pose(p, f), this.result.pose(q, f));
      return {
        color: css(room.canvas, "--second"), trail: own ? trail(this.result, q) : [],
        place: j => { const point = this.result.place(q, f, j); return way ? moved(way, ...point) : point; },
      };
    });
  }

  // What a Plot draws of somebody's distances.
  distanceLines(p) {
    const its = this.distances[p];
    const stretch = f => Number.isNaN(its.relative[f]) ? 0 : first.stretchAt(p, f) + 256 * this.result.stretchAt(this.partners[p], f);
    return its ? [
      { name: "pelvis on pelvis", color: css(room.canvas, "--second"), values: its.relative, stretch },
      { name: "turned and scaled", color: "", values: its.fitted, stretch },
    ] : [];
  }
}
