/**
 * What a worker serves: the connections and layers that the main thread has told it of. Serve workers spend their lives
 * in a system call, so they take their messages between requests, and when they meet a layer that they do not know.
 */
import { type SerializedError, toLaminaError } from '../errors.js';
import { ErofsReader } from '../erofs/reader.js';
import type { FileSystem } from '../fuse/file-system.js';
import type { Negotiated } from '../fuse/init.js';
import type { Connection } from '../fuse/serve-loop.js';
import { Session } from '../fuse/session.js';
import { BlobFs } from '../mount/blobfs.js';
import { Counters } from '../mount/counters.js';
import { FailedFs } from '../mount/failed-fs.js';
import type { IdMap } from '../mount/id-map.js';
import { ImageFs } from '../mount/image-fs.js';
import { mapTree } from '../mount/map-tree.js';
import { LayerReaders, type LayerSource } from '../mount/layer-readers.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import type { Mapping } from '../native/libc.js';
import { withoutSeal } from '../store/sealed.js';

export type ConnectionContent =
  | { readonly kind: 'blobs' }
  | {
      readonly kind: 'image';
      readonly treePath: string;
      readonly slots: readonly number[];
      readonly idMap: IdMap | undefined;
    };

export interface ConnectionSpec {
  /** The epoll datum: from 1 on, never used twice by one server. */
  readonly id: number;
  readonly fd: number;
  readonly content: ConnectionContent;
  readonly negotiated: Negotiated | undefined;
}

/** Main thread to worker. */
export type ToWorker =
  /**
   * `places`: all of one layer's, under one slot. `ahead`: parts of its blob that are fetched before anybody asks for them,
   * which fill workers decompress.
   */
  | { readonly op: 'layer'; readonly places: readonly LayerSource[]; readonly ahead: readonly ByteRange[] }
  | { readonly op: 'connect'; readonly spec: ConnectionSpec }
  | { readonly op: 'disconnect'; readonly id: number }
  /** No mount uses these layers now: their files are closed. */
  | { readonly op: 'rest'; readonly slots: readonly number[] }
  /** Nothing will ask for these slots again. */
  | { readonly op: 'forget'; readonly slots: readonly number[] };

/** Worker to main thread. */
export type FromWorker =
  | { readonly op: 'ready' }
  | { readonly op: 'init'; readonly id: number; readonly negotiated: Negotiated }
  | { readonly op: 'gone'; readonly id: number }
  /** The worker may have been at work: now it will not use the connection's descriptor any more. */
  | { readonly op: 'released'; readonly id: number }
  | { readonly op: 'failed'; readonly connection: number; readonly node: number; readonly error: SerializedError }
  | { readonly op: 'healed'; readonly diffId: string; readonly offset: number; readonly got: string };

/** Serve to fill worker: a READ request that missed, as it came from the kernel. */
export interface Deferred {
  readonly id: number;
  readonly request: Uint8Array;
}

export interface ServedOptions {
  /** Bytes of verified chunks to keep. */
  readonly memory: number;
  /** Made by `createCounterMemory`, this thread's own. */
  readonly counters: SharedArrayBuffer;
}

interface Entry {
  readonly connection: Connection;
  readonly close: () => void;
}

export class Served {
  readonly layers: LayerReaders;
  readonly #send: (message: FromWorker) => void;
  readonly #connections = new Map<number, Entry>();

  constructor({ memory, counters }: ServedOptions, send: (message: FromWorker) => void) {
    this.#send = send;
    this.layers = new LayerReaders({
      memory,
      counters: new Counters(counters),
      onHeal: (layer, offset, got) => send({ op: 'healed', diffId: layer.diffId, offset, got }),
    });
  }

  apply(message: ToWorker): void {
    switch (message.op) {
      case 'layer':
        this.layers.set(message.places);
        return;
      case 'connect':
        this.#connect(message.spec);
        return;
      case 'disconnect':
        this.#connections.get(message.id)?.close();
        this.#connections.delete(message.id);
        return;
      case 'rest':
        return this.layers.rest(message.slots);
      case 'forget':
        return this.layers.forget(message.slots);
    }
  }

  connection(id: number): Connection | undefined {
    return this.#connections.get(id)?.connection;
  }

  #connect({ id, fd, content, negotiated }: ConnectionSpec): void {
    const { fs, close } = this.#fileSystem(id, content);
    const session = new Session(fs, {
      negotiated,
      onInit: (agreed) => this.#send({ op: 'init', id, negotiated: agreed }),
      onError: (_operation, node, e) =>
        this.#send({ op: 'failed', connection: id, node, error: toLaminaError(e).toJSON() }),
    });
    this.#connections.set(id, { connection: { id, fd, session }, close });
  }

  /** A tree that cannot be read fails every access; the other mounts go on, and nobody hangs. */
  #fileSystem(id: number, content: ConnectionContent): { fs: FileSystem; close: () => void } {
    if (content.kind === 'blobs') return { fs: new BlobFs(this.layers), close: () => undefined };
    let tree: Mapping | undefined;
    try {
      tree = mapTree(content.treePath);
      const fs = new ImageFs(new ErofsReader(withoutSeal(tree.bytes)), this.layers, content.slots, content.idMap);
      return { fs, close: () => tree?.close() };
    } catch (e) {
      tree?.close();
      const error = toLaminaError(e);
      this.#send({ op: 'failed', connection: id, node: 0, error: error.toJSON() });
      return { fs: new FailedFs(error), close: () => undefined };
    }
  }
}
