package history

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strconv"
)

// The lines are encoded without encoding/json, which takes several times as long: a deploy
// that restarts thousands of services results in one line with thousands of records and
// events. The output can be decoded by encoding/json, and contains no newline.

// A lineWriter writes one line of the file in pieces, since a snapshot of a host with thousands
// of listeners takes many megabytes.
type lineWriter struct {
	file  io.WriterAt
	begin int64  // offset of the line
	end   int64  // offset of the next piece
	sum   uint32 // of the body so far
	err   error
}

// pieceSize is the size from which a piece is written.
const pieceSize = 64 << 10

// writeLine writes a line, including its newline, at an offset of a file, and returns its length. It
// writes the prefix last: until then the line is torn.
func writeLine(file io.WriterAt, offset int64, l line) (length int64, err error) {
	w := &lineWriter{file: file, begin: offset, end: offset + int64(prefixLen)}
	body := append(l.append(nil, w.spill), '}') // the opening brace is part of the prefix
	w.sum = crc32.Update(w.sum, castagnoli, body)
	w.write(append(body, '\n'))
	length = w.end - w.begin
	if w.err == nil && length > maxLine/2 {
		w.err = fmt.Errorf("%d bytes are too large for a line", length)
	}
	if w.err == nil {
		_, w.err = file.WriteAt(appendPrefix(nil, w.sum), w.begin)
	}
	return length, w.err
}

// spill writes a piece if it is long enough, except for its last byte, which end may
// still replace. It returns the rest.
func (w *lineWriter) spill(b []byte) []byte {
	last := len(b) - 1
	if last < pieceSize {
		return b
	}
	w.sum = crc32.Update(w.sum, castagnoli, b[:last])
	w.write(b[:last])
	return append(b[:0], b[last])
}

// write writes a piece, unless an error has occurred.
func (w *lineWriter) write(piece []byte) {
	if w.err == nil {
		_, w.err = w.file.WriteAt(piece, w.end)
	}
	w.end += int64(len(piece))
}

// append appends the members of a line, without the enclosing braces. After each record and
// event it passes what it has appended to spill, and continues with the result.
func (l *line) append(b []byte, spill func([]byte) []byte) []byte {
	if s := l.Snapshot; s != nil {
		b = append(appendKey(b, "snapshot"), '{')
		b = append(strconv.AppendInt(appendKey(b, "version"), int64(s.Version), 10), ',')
		b = appendText(b, "machine_id", s.Machine)
		b = append(appendString(appendKey(b, "history"), s.ID), ',')
		b = append(strconv.AppendInt(appendKey(b, "sequence"), s.Sequence, 10), ',')
		b = appendRecords(b, "records", s.Records, spill)
		b = appendEvents(b, "waiting", s.Waiting, spill)
		b = appendEvents(b, "recent", s.Recent, spill)
		b = end(b, '}')
	}
	b = appendText(b, "history", l.ID)
	if l.Sequence != 0 {
		b = append(strconv.AppendInt(appendKey(b, "sequence"), l.Sequence, 10), ',')
	}
	b = appendRecords(b, "set", l.Set, spill)
	b = appendEvents(b, "events", l.Events, spill)
	if len(l.Delivered) > 0 {
		b = append(appendKey(b, "delivered"), '[')
		for _, r := range l.Delivered {
			b = append(strconv.AppendInt(append(b, '['), r[0], 10), ',')
			b = append(strconv.AppendInt(b, r[1], 10), "],"...)
		}
		b = end(b, ']')
	}
	if n := len(b); n > 0 && b[n-1] == ',' {
		b = b[:n-1]
	}
	return b
}

func appendRecords(b []byte, key string, records map[string]json.RawMessage, spill func([]byte) []byte) []byte {
	if len(records) == 0 {
		return b
	}
	b = append(appendKey(b, key), '{')
	names := slices.AppendSeq(make([]string, 0, len(records)), maps.Keys(records))
	slices.Sort(names)
	for _, name := range names {
		b = append(appendString(b, name), ':')
		if record := records[name]; record != nil {
			b = append(b, record...)
		} else {
			b = append(b, "null"...)
		}
		b = spill(append(b, ','))
	}
	return end(b, '}')
}

func appendEvents(b []byte, key string, events []event, spill func([]byte) []byte) []byte {
	if len(events) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i := range events {
		b = spill(events[i].append(b))
	}
	return end(b, ']')
}

// appendText appends a member unless its value is "".
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return append(appendString(appendKey(b, key), value), ',')
}
