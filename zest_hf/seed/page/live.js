// The seeder's events, with a word about whether they still come.

const SILENT_MS = 6000; // a status comes every second
const RETRY_MS = 3000;

export class Live {
  // handlers: by the name of an event; changed(state): "live" or "lost"
  constructor(address, handlers, changed) {
    this.address = address;
    this.handlers = handlers;
    this.changed = changed;
    this.heard = performance.now();
    this.connect();
    setInterval(() => this.look(), 1000);
    document.addEventListener("visibilitychange", () => this.look());
  }

  connect() {
    const source = new EventSource(this.address);
    this.source = source;
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.heard = performance.now();
        handle(JSON.parse(event.data));
        this.changed("live");
      });
    }
    source.addEventListener("error", () => {
      this.changed("lost");
      // A browser tries again by itself, unless it got an answer that it does not like.
      if (source.readyState === EventSource.CLOSED) this.again();
    });
  }

  again() {
    this.source.close();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), RETRY_MS);
  }

  look() {
    if (document.hidden || performance.now() - this.heard < SILENT_MS) return;
    this.heard = performance.now();
    this.changed("lost");
    this.again();
  }

  end() {
    this.source.close();
    this.changed = () => {};
    this.again = () => {};
  }
}
