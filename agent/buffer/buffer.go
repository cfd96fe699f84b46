// Package buffer implements the queues of encoded records between the agent and its
// outputs, in memory and on disk, and the dead-letter file for rejected records.
//
// disk.go is the queue on disk, from top to bottom. Its writer (writer.go) appends
// frames (frame.go) to the active segment (segment.go). Its reader (reader.go,
// retry.go) returns the records and saves the delivered position (acks.go). The catalog
// (catalog.go) knows what each segment holds; both share it (store.go). All file operations
// go through the folder interface (folder.go; implemented in folder_unix.go and
// directory_unix.go).
//
// memory.go is the queue in memory, backlog.go inspects a queue without opening it,
// deadletter.go writes the dead-letter file, and statefile.go other files of the state
// directory.
package buffer

import (
	"errors"
	"fmt"
	"time"
)

// A Queue is a bounded FIFO of records, appended in blocks. One goroutine calls Append,
// one calls Peek and Ack, any goroutine may call Stats.
type Queue interface {
	// Append adds the records of one batch, oldest first. It does not keep the slices.
	// A queue on disk has synced the records when Append returns. If they do not fit
	// under the limit, Append drops the oldest records that Peek has not returned;
	// dropped says how many. If that is not enough, the error is ErrFull. A block that
	// is larger than the limit is a TooLargeError. On an error no record of the block is
	// queued.
	Append(block [][]byte) (dropped int, err error)
	// Peek returns the oldest records: at most maxRecords, and at most maxBytes, where
	// each record counts one byte more for its terminator, but at least one record if
	// there is any. They stay queued and are not dropped until Ack. The caller must not
	// change them, nor keep them after Ack. A second Peek before Ack starts from the
	// oldest again.
	Peek(maxRecords, maxBytes int) ([][]byte, error)
	// Ack removes the first n records that the last Peek returned. The others can be
	// dropped again; Ack(0) removes none.
	Ack(n int) error
	// SetLimit changes the limit for later Appends, after a reload.
	SetLimit(limit int64)
	// Stats returns the current state. It never waits for I/O.
	Stats() Stats
	// Close closes the queue. The records of a queue on disk are kept for the next open.
	Close() error
}

// Stats is the state of a queue.
type Stats struct {
	Records int       // queued, including those that Peek returned
	Bytes   int64     // size of these records as stored
	Oldest  time.Time // when the oldest was appended; zero if the queue is empty

	// Used is the space that counts against Limit: Bytes, plus delivered records whose
	// space is not free yet, plus overhead. Append drops records when Used would exceed
	// Limit.
	Used, Limit int64

	// Damaged counts the records found lost to damage since the queue was opened, as
	// far as the remaining data shows. DamagedBytes counts skipped bytes that are not
	// part of a whole block: damage, or a block that a kill cut off before it was
	// queued. The records of such a block count as Damaged only if a power failure kept
	// its header and not the rest.
	Damaged      int
	DamagedBytes int64
}

// ErrFull is the error of a block that does not fit beside the records that Peek has
// returned.
var ErrFull = errors.New("the queue is full of records that are being delivered")

// A TooLargeError reports a block that is larger than the limit.
type TooLargeError struct {
	Size, Limit int64 // in bytes, Size including overhead
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a batch of %d bytes is larger than buffer_limit (%d bytes)", e.Size, e.Limit)
}
