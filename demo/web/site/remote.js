// Questions to a worker, and its answers.

// The worker starts from a blob, so that it is under the page's Content-Security-Policy.
export class Remote {
  constructor(file) {
    const start = `import ${JSON.stringify(new URL(file, import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([start], { type: "text/javascript" }));
    this.worker = new Worker(url, { type: "module" });
    this.open = new Map();
    this.number = 0;
    this.worker.onmessage = ({ data: { number, value, error } }) => {
      const [resolve, reject] = this.open.get(number);
      this.open.delete(number);
      error === undefined ? resolve(value) : reject(new Error(error));
    };
    this.worker.onerror = event => {
      for (const [, reject] of this.open.values()) reject(new Error(event.message || `${file} does not load`));
      this.open.clear();
    };
  }

  ask(question, value, transfer = []) {
    return new Promise((resolve, reject) => {
      this.open.set(++this.number, [resolve, reject]);
      this.worker.postMessage({ number: this.number, question, value }, transfer);
    });
  }
}

// In a worker: answers are functions by the name of their question; questions wait for each other.
export function answerWith(answers) {
  let last = Promise.resolve();
  onmessage = ({ data: { number, question, value } }) => {
    last = last.then(async () => {
      try {
        const answer = await answers[question](value);
        postMessage({ number, value: answer }, answer instanceof ImageBitmap ? [answer] : answer?.image ? [answer.image] : []);
      } catch (error) {
        postMessage({ number, error: error.message });
      }
    });
  };
}
