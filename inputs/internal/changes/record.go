package changes

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sockwatch/inputs/internal/inet"
)

// The keys of the records: one for each endpoint, and two for the whole.
const (
	endpointPrefix = "e:"
	viewKey        = "t:look"
	totalsKey      = "t:totals"
)

// recordKey returns the key of an endpoint's record. Addresses have no spaces.
func recordKey(at Endpoint) string {
	return endpointPrefix + strconv.Itoa(int(at.Port)) + " " + at.Address + " " + at.Netns
}

func parseRecordKey(key string) (at Endpoint, ok bool) {
	rest, ok := strings.CutPrefix(key, endpointPrefix)
	if !ok {
		return at, false
	}
	port, rest, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(port, 10, 16)
	address, netns, ok := strings.Cut(rest, " ")
	at = Endpoint{Netns: netns, Address: address, Port: uint16(n)}
	return at, ok && err == nil && recordKey(at) == key
}

// encode returns a record. It cannot fail: records contain nothing that JSON cannot represent.
func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// addr returns the address without its device.
func (at Endpoint) addr() netip.Addr {
	address, _, _ := strings.Cut(at.Address, "%")
	addr, _ := netip.ParseAddr(address)
	return addr
}

// Restore takes over the records that an earlier Tracker put into Result.Set. It is called
// before the first Observe. It skips damaged records of this package, and returns their
// number. Without the record of the last scan it skips all: the next scan is a baseline.
func (t *Tracker) Restore(records map[string]json.RawMessage) (damaged int) {
	for key, text := range records {
		if !t.restore(key, text) {
			damaged++
		}
	}
	if t.last.Number == 0 {
		*t = *New(t.options)
	}
	return damaged
}

// restore takes over one record. It returns false if the record is damaged.
func (t *Tracker) restore(key string, text json.RawMessage) bool {
	switch {
	case key == viewKey:
		var v view
		if json.Unmarshal(text, &v) != nil || v.Number == 0 {
			return false
		}
		t.last = v
	case key == totalsKey:
		var counts map[string]map[string]uint64
		if json.Unmarshal(text, &counts) != nil {
			return false
		}
		for _, kind := range kinds() {
			for expected, n := range counts[kind] {
				t.totals.counts[kind][expected] = n
			}
		}
	case strings.HasPrefix(key, endpointPrefix):
		return t.restoreEndpoint(key, text)
	}
	return true
}

func (t *Tracker) restoreEndpoint(key string, text json.RawMessage) bool {
	at, ok := parseRecordKey(key)
	if !ok {
		return false
	}
	var r struct {
		closedRecord
		record
	}
	if json.Unmarshal(text, &r) != nil {
		return false
	}
	if r.Closed != 0 {
		t.memory.add(at, time.Unix(r.Closed, 0))
		return true
	}
	if !r.record.valid() {
		return false
	}
	t.endpoints[at] = &endpoint{Endpoint: at, record: r.record}
	return true
}

// valid reports whether this package can have written the record.
func (r *record) valid() bool {
	if len(r.Owners) == 0 || slices.Contains(r.Owners, nil) || r.Unreported && r.Change == nil {
		return false
	}
	for i := range r.Sockets {
		s := &r.Sockets[i]
		if s.Owner < 0 || s.Owner >= len(r.Owners) || i > 0 && compareIDs(r.Sockets[i-1].ID, s.ID) >= 0 {
			return false
		}
	}
	return max(r.Exposure.Reported, r.Exposure.Next) <= inet.Public
}
