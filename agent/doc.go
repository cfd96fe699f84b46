// Package agent runs inputs and outputs.
//
// The path of the data. agent.go reads along it from top to bottom; package delivery and
// endpoint.go continue where it ends:
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
//	                               fill: Encode (filter, min_interval, what has ended)
//	                                  │ block of records
//	                                  ▼
//	                            buffer.Queue (in memory or on disk)
//	                                  │
//	   one goroutine empties it       ▼
//	                          delivery.Run ─flush─▶ drain ─▶ Pusher.Push
//	                                                  └─▶ rejected: dead-letter file
//
// Invariants:
//   - Batches are immutable once published; the board, every view and every inbox
//     share them.
//   - Gathers, scrapes, encoding and delivery never wait for another instance.
//   - A record leaves its queue when the destination has stored it, when it is in
//     the dead-letter file, or when the queue is full. Each case is counted.
//   - An input learns when all outputs have its events (metric.Batch). Until then they
//     wait for a queue that cannot take them.
//   - The agent's own points (package health) come from an input like any other.
//   - A reload does not wait for the instances that it replaces. Each new instance
//     waits for its predecessor, in its own goroutine and for a bounded time.
//   - An instance and its successor have the same counters. So what becomes of a gather whose input
//     was replaced, or of a Push that was abandoned, does not count. Of the batch of such a gather,
//     only the events are delivered.
//   - A series has ended when a batch without it is queued. A batch that is not queued changes
//     nothing (plugin.EndedEncoder).
//   - The record of an unchanged point is not encoded again (plugin.Restamper), and
//     a stream can be handed over in the middle of a write (plugin.PushInheritor).
//   - A stop has two stages: outputs drain for the grace period, then haltCtx ends and
//     everything must return. If something does not, Run returns a HungError.
//
// The files:
//   - agent.go: the path of the data
//   - supervisor.go: the running instances, the watchdog and the stop; reload.go: a reload
//   - input.go, output.go, endpoint.go: one running instance of each kind
//   - transform.go: names, tags and filters
//   - events.go: events that wait for a queue; watch.go: gathers between the ticks
//   - board.go: the latest batches and events; details.go: questions of endpoints to inputs
//   - keepalive.go: reports to the service manager
//   - instances.go: a configuration, ready to run; options.go and validate.go: its options;
//     statedirectory.go: the paths in the state directory
//   - once.go and gatherer.go: the one-shot commands
//
// The packages, of which none knows a running instance: encode (from batches to records, and what has
// ended), delivery (from the queue to the destination), buffer (the queue itself), health (counters),
// schedule (ticks and phases), filter, and calls (calls that may hang, panic or fail again and again).
package agent
