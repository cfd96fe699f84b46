package buffer

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
)

// A segment is one file of frames. Its name holds its index, which grows by one, and the
// sequence number of its first record. So the name of the next segment tells where this
// one ends. Only the process that created a segment writes to it.
type segment struct {
	index uint64
	first uint64

	// The fields below are protected by the lock of the catalog.
	end     uint64 // sequence number after its last record
	size    int64  // of its whole frames
	left    int    // records neither acked nor found damaged
	done    int64  // bytes of acked frames at its start
	writing bool   // it is the active segment
	gone    bool   // dropped or missing: its records are no longer returned
}

// The size of a segment is the limit divided by segmentParts, but between minSegment and
// maxSegment. One larger block makes a larger segment. Each segment also costs
// segmentOverhead: an inode and the end of its last page.
const (
	segmentParts    = 8
	minSegment      = 4 << 10
	maxSegment      = 8 << 20
	segmentOverhead = 4 << 10
)

func segmentSize(limit int64) int64 {
	return max(minSegment, min(maxSegment, limit/segmentParts))
}

func (s *segment) name() string {
	return fmt.Sprintf("%016x-%016x.v%d", s.index, s.first, formatVersion)
}

// cost returns how much the segment counts against the limit.
func (s *segment) cost() int64 { return s.size + segmentOverhead }

// A listing is the content of a directory, judged only by names.
type listing struct {
	segments  []*segment // in order of index
	lastIndex uint64
	newer     []string // files of another version of the format
	foreign   []string // everything else, including symbolic links
}

func list(d folder) (listing, error) {
	entries, err := d.list()
	if err != nil {
		return listing{}, err
	}
	ours := regexp.MustCompile(`^(?:([0-9a-f]{16})-([0-9a-f]{16})|acks)\.v([0-9]+)$`)
	var l listing
	for _, e := range entries {
		m := ours.FindStringSubmatch(e.name)
		var s *segment
		if m != nil && m[1] != "" {
			s = &segment{size: e.size}
			s.index, _ = strconv.ParseUint(m[1], 16, 64)
			s.first, _ = strconv.ParseUint(m[2], 16, 64)
			l.lastIndex = max(l.lastIndex, min(s.index, maxSequence))
		}
		switch {
		case e.regular && (e.name == reserveName || e.name == acksName):
		case !e.regular || m == nil:
			l.foreign = append(l.foreign, e.name)
		case m[3] != strconv.Itoa(formatVersion):
			l.newer = append(l.newer, e.name)
		case s.index == 0 || s.index > maxSequence || s.first > maxSequence:
			l.foreign = append(l.foreign, e.name)
		default:
			l.segments = append(l.segments, s)
		}
	}
	slices.SortFunc(l.segments, func(a, b *segment) int { return cmp.Compare(a.index, b.index) })
	for i := len(l.segments) - 2; i >= 0; i-- { // a power failure can bring back a removed segment, out of order
		if s, next := l.segments[i], l.segments[i+1]; s.first > next.first || s.index == next.index {
			l.foreign = append(l.foreign, s.name())
			l.segments = slices.Delete(l.segments, i, i+1)
		}
	}
	slices.Sort(l.newer)
	slices.Sort(l.foreign)
	return l, nil
}

// survey finds out how many records after the acked position each segment holds. It
// reads only segments without a direct successor (the last one, and those before a gap),
// and of these only the headers.
func survey(d folder, segments []*segment, acked uint64) error {
	for i, s := range segments {
		var next *segment
		if i+1 < len(segments) {
			next = segments[i+1]
		}
		if next != nil && next.index == s.index+1 {
			s.end = next.first
		} else {
			end, err := surveyOne(d, s)
			if err != nil {
				return fmt.Errorf("%q: %w", s.name(), err)
			}
			if s.end = end; next != nil {
				s.end = min(end, next.first)
			}
		}
		if begin := max(s.first, acked); s.end > begin {
			s.left = int(s.end - begin)
		}
	}
	return nil
}

// surveyOne returns the sequence number after the last record of a segment.
func surveyOne(d folder, s *segment) (end uint64, err error) {
	f, err := d.open(s.name())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end = s.first
	r := &retryReader{r: f}
	for off := int64(0); off < s.size; {
		h, at, err := scan(r, off, s.size)
		next, follows := at+h.size(), false
		if err == nil {
			_, follows, err = headerAt(r, next, s.size)
		}
		switch {
		case err != nil: // try again: r gives up after readTries
		case at == s.size:
			return end, nil
		case follows || next == s.size:
			end, off = max(end, h.end()), next
		default: // the frame may be shorter than its header says
			end, off = max(end, h.end()), at+1
		}
	}
	return end, nil
}

// headerAt returns the header at off. It reports false if there is no valid one, or its
// frame ends after size.
func headerAt(f io.ReaderAt, off, size int64) (h header, ok bool, err error) {
	var b [headerSize]byte
	if err := readAt(f, b[:], off); err != nil {
		return header{}, false, err
	}
	h, ok = parseHeader(b[:])
	return h, ok && off+h.size() <= size, nil
}

// scan returns the first valid header at or after off whose frame ends at or before
// size, and its offset. If there is none, the offset is size.
func scan(f io.ReaderAt, off, size int64) (h header, at int64, err error) {
	if h, ok, err := headerAt(f, off, size); ok || err != nil {
		return h, off, err
	}
	chunk := make([]byte, 64<<10)
	for off+headerSize <= size {
		b := chunk[:min(int64(len(chunk)), size-off)]
		if err := readAt(f, b, off); err != nil {
			return header{}, off, err
		}
		for i := 0; ; i++ {
			k := bytes.Index(b[i:], []byte(magic))
			if k < 0 || i+k+headerSize > len(b) {
				break
			}
			i += k
			if h, ok := parseHeader(b[i:]); ok && off+int64(i)+h.size() <= size {
				return h, off + int64(i), nil
			}
		}
		off += int64(len(b)) - headerSize + 1
	}
	return header{}, size, nil
}
