package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// The file consists of lines of JSON. The first line is a snapshot, and each other line
// contains the changes of one write. Each begins with the CRC-32C of what follows its comma:
//
//	{"crc":"9a3c2f10","snapshot":{"version":1,...}}
//	{"crc":"01d7e5bb","history":"6f1d...","sequence":7,"set":{"e:...":{...}},"events":[...],"delivered":[[5,6]]}
//
// Each line is written and synced separately, so only the last one can be torn.

const version = 1

// maxLine is the maximum length of a line that is read or written.
const maxLine = 512 << 20

// A line is one line of the file: a snapshot, changes, or both.
type line struct {
	Snapshot  *snapshot                  `json:"snapshot,omitempty"`
	ID        string                     `json:"history,omitempty"` // for the next event
	Sequence  int64                      `json:"sequence,omitempty"`
	Set       map[string]json.RawMessage `json:"set,omitempty"`
	Events    []event                    `json:"events,omitempty"`
	Delivered [][2]int64                 `json:"delivered,omitempty"` // ranges of sequences

	all bool // the line must contain a snapshot
}

// A snapshot is a complete content.
type snapshot struct {
	Version  int                        `json:"version"`
	Machine  string                     `json:"machine_id,omitempty"`
	ID       string                     `json:"history"`
	Sequence int64                      `json:"sequence"`
	Records  map[string]json.RawMessage `json:"records,omitempty"`
	Waiting  []event                    `json:"waiting,omitempty"`
	Recent   []event                    `json:"recent,omitempty"` // without the waiting ones
}

// line returns the line to be written: the pending changes and, if whole, also the snapshot. It
// shares no mutable data with the content.
func (c *content) line(changed *pending, whole bool) line {
	l := line{
		ID: c.id, Sequence: c.sequence, Set: changed.records, Events: copyEvents(changed.events), Delivered: ranges(changed.finished),
		all: changed.all,
	}
	if whole {
		s := &snapshot{
			Version: version, Machine: c.machine, ID: c.id, Sequence: c.sequence,
			Records: c.copyRecords(), Waiting: copyEvents(c.waiting),
		}
		for _, e := range c.lastRecent() {
			if e.state == finished {
				s.Recent = append(s.Recent, *e)
			}
		}
		l.Snapshot = s
	}
	return l
}

// apply applies a line of the file to the content.
func (c *content) apply(l *line) error {
	if s := l.Snapshot; s != nil {
		if s.Version != version {
			return fmt.Errorf("version %d, this program has %d", s.Version, version)
		}
		*c = content{id: s.ID, machine: s.Machine, sequence: s.Sequence, records: map[string]json.RawMessage{}}
		c.applyRecords(s.Records)
		c.remember(inState(finished, s.Recent))
		c.applyEvents(s.Waiting)
		return nil
	}
	c.id, c.sequence = l.ID, l.Sequence
	c.applyRecords(l.Set)
	c.applyEvents(l.Events)
	c.applyDelivered(l.Delivered)
	return nil
}

func (c *content) applyRecords(set map[string]json.RawMessage) {
	for key, record := range set {
		c.set(key, record)
	}
}

func (c *content) applyEvents(events []event) {
	c.waiting = append(c.waiting, inState(ready, events)...)
	if n := len(c.waiting); n > 0 {
		c.sequence = max(c.sequence, c.waiting[n-1].sequence)
	}
}

func (c *content) applyDelivered(ranges [][2]int64) {
	var done []*event
	for _, e := range c.waiting {
		if slices.ContainsFunc(ranges, func(r [2]int64) bool { return r[0] <= e.sequence && e.sequence <= r[1] }) {
			done = append(done, e)
		}
	}
	c.remember(c.finish(done))
}

// ranges returns sequences as inclusive ranges.
func ranges(sequences []int64) (ranges [][2]int64) {
	sequences = slices.Sorted(slices.Values(sequences))
	for _, n := range sequences {
		if k := len(ranges) - 1; k >= 0 && n <= ranges[k][1]+1 {
			ranges[k][1] = n
		} else {
			ranges = append(ranges, [2]int64{n, n})
		}
	}
	return ranges
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const linePrefix = `{"crc":"`

// appendPrefix appends the beginning of a line: linePrefix and the checksum of its body.
func appendPrefix(dst []byte, sum uint32) []byte {
	return fmt.Appendf(dst, `%s%08x",`, linePrefix, sum)
}

const prefixLen = len(linePrefix) + len(`00000000",`)

// parseLine parses a line without its newline, and modifies b.
func parseLine(b []byte) (l line, err error) {
	if len(b) < prefixLen || string(b[:len(linePrefix)]) != linePrefix {
		return l, errors.New("is not a line of a history")
	}
	body := b[prefixLen:]
	if !bytes.Equal(b[:prefixLen], appendPrefix(nil, crc32.Checksum(body, castagnoli))) {
		return l, errors.New("its checksum does not match")
	}
	b[prefixLen-1] = '{'
	err = json.Unmarshal(b[prefixLen-1:], &l)
	return l, err
}

// read reads a history. It ignores the last line if that was torn by a kill or a power
// failure, because none of its events was handed out.
func read(r io.Reader) (*content, error) {
	lines := bufio.NewReader(r)
	var c *content
	for n := 1; ; n++ {
		text, ended, err := readLine(lines)
		if err != nil {
			return nil, err
		}
		last := !ended
		if ended {
			_, err := lines.Peek(1)
			last = errors.Is(err, io.EOF)
		}
		torn := !ended || last && bytes.IndexByte(text, 0) >= 0 // a power failure leaves zeros
		switch {
		case torn && c != nil:
			return c, nil
		case torn && len(text) == 0:
			return nil, errors.New("is empty")
		case torn:
			return nil, errors.New("line 1: has no end")
		}
		if c, err = c.read(text); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if last {
			return c, nil
		}
	}
}

// read returns the content after a line; c is nil before the first, the snapshot.
func (c *content) read(text []byte) (*content, error) {
	l, err := parseLine(text)
	if err != nil {
		return nil, err
	}
	if (l.Snapshot != nil) != (c == nil) {
		return nil, errors.New("is out of place")
	}
	if c == nil {
		c = &content{}
	}
	return c, c.apply(&l)
}

// readLine reads a line without its newline. ended reports whether it had one.
func readLine(r *bufio.Reader) (text []byte, ended bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case err == nil:
			return text[:len(text)-1], true, nil
		case errors.Is(err, io.EOF):
			return text, false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, err
		case len(text) > maxLine:
			return nil, false, errors.New("has a line that is too long")
		}
	}
}
