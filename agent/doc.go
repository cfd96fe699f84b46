// Package agent runs inputs and outputs: the ground that plugins stand on.
//
// The path of the data, in agent.go from top to bottom until delivery.go pushes and
// endpoint.go serves:
//
//	Agent.Run ─ adopt(configuration), at the start and at every reload
//	   │
//	   │  one goroutine for each input                one for each endpoint
//	   ▼                                                      ▼
//	gatherEvery ─tick─▶ runGather ─▶ Input.Gather         Endpoint.Serve
//	                                  │ Batch                 ▲
//	                     transform: name, tags, filter        │ Latest, Events, Refresh
//	                                  ▼                       │
//	                               publish ──▶ board ──▶ view (filter)
//	                                  │
//	                                  │ offer: the inbox of each output that pushes
//	   one goroutine fills its queue  ▼
//	                               fill: filter, Encode each point
//	                                  │ block of records
//	                                  ▼
//	                            buffer.Queue (in memory or on disk)
//	                                  │
//	   one goroutine empties it       ▼
//	                               deliver ─flush─▶ drain ─▶ Pusher.Push
//	                                                   └─▶ rejected: dead letters
//
// What holds:
//   - Batches are immutable once published; the board, every view and every inbox
//     share them.
//   - A gather, a scrape, an encoding, a delivery wait for no other instance.
//   - A record leaves its queue when the destination has stored it, when it is in
//     the dead-letter file, or when the queue is full: each is counted.
//   - The agent's own points (health.go) are an input like any other.
//   - A reload waits for nothing that it replaces: the successor of an instance does,
//     for a bounded time, in a goroutine of its own.
//   - A record of a point that has not changed is not encoded again (plugin.Restamper),
//     and a stream is handed on in the middle of a write (plugin.PushInheritor).
//   - A stop has two stages: outputs drain for the grace period, then haltCtx ends and
//     everything returns. What does not is for the watchdog: Run returns a HungError.
//
// The files: agent.go is the path of the data. supervisor.go holds what runs, with the
// watchdog and the stop; reload.go exchanges it. input.go, output.go and endpoint.go
// are the instances at work. queue.go is an output's queue with its rules and its
// flushes, delivery.go a Push and what becomes of it, bisect.go the search for rejected
// records. transform.go makes a plugin's batch the instance's, encode.go makes records
// of it. board.go holds the latest batches and events, schedule.go the ticks of inputs,
// calls.go the calls that have not returned. health.go counts, and metrics.go describes
// what it counts. instances.go is a configuration that is built, options.go and
// validate.go are its options. once.go runs the one-shot commands. Package listen binds
// the sockets of endpoints.
package agent
