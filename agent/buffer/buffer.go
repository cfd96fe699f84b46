// Package buffer holds queues of encoded records between the agent, which
// appends a block for every batch, and the delivery to one output; and the records
// that an output's destination rejected.
//
// disk.go is the path of a queue on disk from top to bottom. Its writer (writer.go)
// appends frames (frame.go) to the active segment (segment.go), its reader
// (reader.go, retry.go) hands them out and notes the position (acks.go), and the
// catalog knows what each segment holds (catalog.go). What they ask of the file
// system is in folder.go, and done in folder_unix.go and directory_unix.go.
// memory.go is the queue in memory, backlog.go looks into a queue that nobody
// opens, deadletter.go keeps what was rejected.
package buffer

import (
	"fmt"
	"time"
)

// A Queue is a bounded FIFO of records, appended in blocks. One goroutine
// appends, one peeks and acks, anyone asks for Stats.
type Queue interface {
	// Append adds the records of one batch, oldest first; nothing of the block is
	// kept. On return they are as safe as the queue makes records: on disk, synced.
	// If they do not fit under the limit, the oldest records that are not handed out
	// go, or the block if all the others are; dropped says how many. A block that is
	// larger than the limit itself is a TooLargeError. On an error nothing of the
	// block is queued.
	Append(block [][]byte) (dropped int, err error)
	// Peek hands out the oldest records, at most maxRecords and at most maxBytes of
	// them, each a byte more for what will end it, yet at least one if there is any.
	// They stay queued and are not dropped until Ack. The caller changes none and
	// keeps none beyond it. Peek before Ack hands out from the oldest again.
	Peek(maxRecords, maxBytes int) ([][]byte, error)
	// Ack removes the first n of the records handed out, for good, and takes the
	// others back: Ack(0) takes back all.
	Ack(n int) error
	// SetLimit changes the limit for the Appends that follow (a reload changed it).
	SetLimit(limit int64)
	// Stats returns what is queued now. It never waits for I/O.
	Stats() Stats
	// Close ends the queue. What a queue on disk holds is there at the next open.
	Close() error
}

// Stats is what a queue holds.
type Stats struct {
	Records int       // queued, those handed out included
	Bytes   int64     // of those records, as they are stored
	Oldest  time.Time // when the oldest was appended; zero if there is none

	// Used is what the records count against Limit: Bytes, what of their blocks is
	// delivered and still takes space, and what each costs beside its bytes. Appends
	// drop records when Used would be larger than Limit.
	Used, Limit int64

	// Damaged counts the records that turned out to be lost to damage since the
	// queue was opened, as far as what is left tells; DamagedBytes what was skipped
	// since it was no part of a whole block: damage, or the end of a block that
	// a kill cut off before it was queued. A block that was never queued counts as
	// damaged only if a loss of power kept its header and not the rest.
	Damaged      int
	DamagedBytes int64
}

// A TooLargeError is the error of a block that is larger than the whole limit.
type TooLargeError struct {
	Size, Limit int64 // in bytes, as they count against the limit
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a batch of %d bytes is larger than buffer_limit (%d bytes)", e.Size, e.Limit)
}
