package buffer

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, &header{payload: 1, raw: 2, first: 3, count: 2, sum: 5, time: time.Unix(6, 7)}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHeader(b)
		if !ok && len(b) >= headerSize { // so that the fuzzer gets behind the checksum
			b = slices.Clone(b[:headerSize])
			copy(b, magic+"\x01\x00\x00\x00")
			sum := checksum(b[:40])
			b = append(b[:40], byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
			h, ok = parseHeader(b)
		}
		if !ok {
			return
		}
		if h.count <= 0 || h.raw < h.count || h.raw > maxRaw || h.payload < 0 || h.size() < headerSize || h.end() <= h.first {
			t.Fatalf("header %+v", h)
		}
		if got := appendHeader(nil, &h); !bytes.Equal(got, b[:headerSize]) {
			t.Fatalf("%x, want %x", got, b[:headerSize])
		}
	})
}

// FuzzFrame encodes frames of any records and reads them back.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nfour"), uint64(7))
	e, err := newEncoder()
	must(f, err)
	z, err := newDecoder()
	must(f, err)
	f.Fuzz(func(t *testing.T, text []byte, first uint64) {
		block := bytes.Split(text, []byte("\n"))
		now := time.Unix(0, int64(first))
		frame, err := e.encode(first%maxSequence, now, block)
		must(t, err)
		h, ok := parseHeader(frame)
		if !ok || h.size() != int64(len(frame)) || h.first != first%maxSequence || !h.time.Equal(now) {
			t.Fatalf("header %+v, %v of a frame of %d bytes", h, ok, len(frame))
		}
		records, err := decode(z, &h, frame[headerSize:])
		must(t, err)
		if diff := cmp.Diff(block, records); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzPayload decodes any payload after a header with a valid checksum.
func FuzzPayload(f *testing.F) {
	e, err := newEncoder()
	must(f, err)
	frame, err := e.encode(1, time.Unix(1, 0), [][]byte{[]byte("one"), nil, []byte("three")})
	must(f, err)
	h, _ := parseHeader(frame)
	f.Add(slices.Clone(frame[headerSize:]), uint16(h.raw), uint16(h.count))
	z, err := newDecoder()
	must(f, err)
	f.Fuzz(func(t *testing.T, payload []byte, raw, count uint16) {
		h := header{payload: len(payload), raw: int(raw), count: int(count), sum: checksum(payload)}
		records, err := decode(z, &h, payload)
		if err == nil && len(records) != int(count) {
			t.Fatalf("%d records, want %d", len(records), count)
		}
	})
}

func FuzzSlot(f *testing.F) {
	f.Add(appendSlot(nil, 77))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseSlot(b); ok && !bytes.Equal(appendSlot(nil, p), b[:slotSize]) {
			t.Fatalf("position %d of %x", p, b)
		}
	})
}

// FuzzSegments opens a queue on any two segments and acks: it opens, can be drained,
// accepts new records and returns them.
func FuzzSegments(f *testing.F) {
	d := newFakeFolder()
	for range 2 {
		q, err := newDisk(d, "fake", 1<<20, discard())
		must(f, err)
		for range 2 {
			_, err := q.Append([][]byte{[]byte("one"), []byte("two")})
			must(f, err)
		}
		d = d.killed()
	}
	one, two := d.files["0000000000000001-0000000000000000.v1"].data, d.files["0000000000000002-0000000000000004.v1"].data
	f.Add(one, two, appendSlot(nil, 3), uint32(4))
	f.Add(two, one, []byte{}, uint32(2))
	f.Fuzz(func(t *testing.T, one, two, acks []byte, first uint32) {
		d := newFakeFolder()
		d.files[(&segment{index: 1}).name()] = &fakeFile{data: one}
		d.files[(&segment{index: 2, first: uint64(first)}).name()] = &fakeFile{data: two}
		d.files[acksName] = &fakeFile{data: acks}
		q, err := newDisk(d, "fake", 1<<20, discard())
		must(t, err)
		dropped, err := q.Append([][]byte{[]byte("new"), []byte("newer")})
		must(t, err)
		var got [][]byte
		for dropped == 0 {
			records, err := q.Peek(3, 100)
			must(t, err)
			if len(records) == 0 {
				break
			}
			for _, r := range records {
				got = append(got, slices.Clone(r))
			}
			must(t, q.Ack(len(records)))
		}
		want := [][]byte{[]byte("new"), []byte("newer")}
		if n := len(got); dropped == 0 && (n < 2 || !cmp.Equal(got[n-2:], want)) {
			t.Fatalf("got %q", got)
		}
		if s := q.Stats(); dropped == 0 && (s.Records != 0 || s.Bytes != 0) {
			t.Fatalf("left: %+v", s)
		}
		must(t, q.Close())
	})
}

// FuzzListing lists a directory of any names: its segments are in order and do not
// overlap, and every other name is the queue's own or reported.
func FuzzListing(f *testing.F) {
	f.Add("acks.v1\nreserve\n" + segment1 + "\n" + segment2 + "\ncore")
	f.Add("0000000000000003-0000000000000002.v2\nacks.v2\n0000000000000000-0000000000000002.v1")
	f.Add("0000000000000001-0000000000000009.v1\n0000000000000002-0000000000000003.v1\nffffffffffffffff-0000000000000000.v1")
	f.Fuzz(func(t *testing.T, text string) {
		d := newFakeFolder()
		for name := range strings.SplitSeq(text, "\n") {
			d.files[name] = &fakeFile{special: strings.HasPrefix(name, "special"), data: []byte(name)}
		}
		l, err := list(d)
		must(t, err)
		ours := 0
		for _, name := range []string{acksName, reserveName} {
			if d.files[name] != nil {
				ours++
			}
		}
		if n := len(l.segments) + len(l.newer) + len(l.foreign) + ours; n != len(d.files) {
			t.Fatalf("%d names, want %d: %+v", n, len(d.files), l)
		}
		for i, s := range l.segments {
			if d.files[s.name()] == nil || s.index > l.lastIndex || s.size != int64(len(s.name())) {
				t.Errorf("segment %+v, last index %d", s, l.lastIndex)
			}
			if i > 0 && (s.index <= l.segments[i-1].index || s.first < l.segments[i-1].first) {
				t.Errorf("segment %+v after %+v", s, l.segments[i-1])
			}
		}
	})
}
