// Package agent runs inputs and outputs: the ground that plugins stand on.
//
// The path of the data, in agent.go from top to bottom:
//
//	Agent.Run ─ adopt(configuration), at the start and at every reload
//	   │
//	   │  one goroutine for each input                one for each endpoint
//	   ▼                                                      ▼
//	gatherEvery ─tick─▶ gather ─▶ Input.Gather            Endpoint.Serve
//	                                  │ Batch                 ▲
//	                     dresser: name, tags, filter          │ Latest, Refresh
//	                                  ▼                       │
//	                               publish ──▶ board ──▶ view (filter)
//	                                  │
//	                                  │ offer: the inbox of each output that pushes
//	   one goroutine fills its queue  ▼
//	                               push: filter, Encode each point
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
//     the dead letter file, or when the queue is full: each is counted.
//   - The agent's own points (health.go) are an input like any other.
//
// agent.go is the path, live.go what an instance is at work, run.go what they share,
// reload.go how a reload exchanges them, delivery.go the queue's rules, halving.go the
// search for what is rejected, schedule.go the ticks, once.go the
// one-shot commands.
package agent
