// CURVE keys of a client, for a daemon that is reached by tcp.

/** What a client needs to be let in by tcp, in Z85; ipc needs none. */
export interface CurveKeys {
  /** The daemon's public key: no other daemon can pose as it. Of several endpoints, all daemons have this one. */
  serverKey: string
  /** The client's own, which has to stand in the daemon's list of clients. */
  publicKey: string
  secretKey: string
}
