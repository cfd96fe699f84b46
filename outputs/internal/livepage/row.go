package livepage

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"html/template"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sockwatch/agent/metric"
)

// A row is one listener as everyone sees it: it has nothing that only trusted readers may
// see. It never changes. As long as a listener does not change from one gather to the next,
// its row is the same pointer.
type row struct {
	ID      string // 32 hex digits: hash of source, name and tags; unique
	Source  string // of the batch
	Address string // with the port, as people write it: "[::]:443"

	order string // by port, address and the rest of the identity; unique
	searchable

	once sync.Once // guards html and err
	html template.HTML
	err  error
}

// isListener reports whether a point is a listener. Violations of rules have an address and
// a port, too.
func isListener(p *metric.Point) bool {
	return p.Tag("address") != "" && p.Tag("port") != "" && !isViolation(p)
}

// newRow returns the row of a listener. taken are the IDs that other rows of the source have: they
// have the same tags if filters remove those that distinguish them.
func newRow(source string, p *metric.Point, taken map[string]bool) *row {
	id := identity(source, p)
	for n := 2; taken[id]; n++ {
		id = identity(fmt.Sprintf("%s#%d", source, n), p)
	}
	r := &row{ID: id, Source: source, Address: hostPort(p.Tag("address"), p.Tag("port")), searchable: newSearchable(p)}
	r.order = rowOrder(p, r.ID)
	r.lower += "\n" + strings.ToLower(r.Address)
	return r
}

// Get returns the value of a tag or field, or "" if the row does not have it or not everyone
// may see it.
func (r *row) Get(key string) string {
	v, _ := r.value(key, false)
	return v
}

// Where returns the unit, user unit, container or pod.
func (r *row) Where() string {
	where, container := cmp.Or(r.Get("unit"), r.Get("user_unit"), r.Get("container"), r.Get("pod")), r.Get("container")
	if container != "" && where != container {
		where += " " + container
	}
	return where
}

// NoProcess returns why the row has no process.
func (r *row) NoProcess() string {
	switch owner := r.Get("owner"); owner {
	case "none":
		return "no process"
	case "":
		return "unknown"
	default:
		return "owner " + owner
	}
}

// Since returns when the listener was first seen, or the zero time if it listened before
// sockwatch did.
func (r *row) Since() time.Time { return fieldTime(r.point, "first_seen_time_seconds") }

// Started returns when the process was started, or the zero time if that is not known.
func (r *row) Started() time.Time { return fieldTime(r.point, "process_start_time_seconds") }

// Changed returns when the listener last changed or its process was started, or the zero time
// if neither is known.
func (r *row) Changed() time.Time {
	changed, started := fieldTime(r.point, "changed_time_seconds"), r.Started()
	if started.After(changed) {
		return started
	}
	return changed
}

// since returns the earliest time that is known of the row: it has listened for that long,
// or, if that is not known, its process has run for that long.
func (r *row) since() time.Time {
	if since := r.Since(); !since.IsZero() {
		return since
	}
	return r.Started()
}

// A queue is an accept queue.
type queue struct{ Waiting, Limit uint64 }

// Queue returns the accept queue, or nil if its limit is not known.
func (r *row) Queue() *queue {
	if _, ok := r.point.Field("backlog_limit"); !ok {
		return nil
	}
	return &queue{fieldUint(r.point, "backlog"), fieldUint(r.point, "backlog_limit")}
}

// Full returns how many waiting connections fill the queue. The kernel takes one more than the
// limit, so a limit of 0 is not nothing.
func (q *queue) Full() uint64 { return max(1, q.Limit) }

// Share returns a part of Full.
func (q *queue) Share(percent float64) float64 { return float64(q.Full()) * percent / 100 }

// fill returns how full the queue is; -1: not known.
func (q *queue) fill() float64 {
	if q == nil {
		return -1
	}
	return float64(q.Waiting) / float64(q.Full())
}

// unix returns a time in Unix seconds; the zero time is before all others.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return math.Inf(-1)
	}
	return float64(t.UnixNano()) / 1e9
}

// noExposure is the exposure that is shown for an unreachable listener.
const noExposure = "none"

// identity returns the identity of a series as 32 hex digits.
func identity(source string, p *metric.Point) string {
	b := make([]byte, 0, 512)
	b = append(append(b, source...), 0xff) // never occurs in UTF-8
	b = append(append(b, p.Name...), 0xff)
	for _, t := range p.Tags {
		b = append(append(b, t.Key...), 0xff)
		b = append(append(b, t.Value...), 0xff)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// rowOrder returns a string that orders listeners by port, then address.
func rowOrder(p *metric.Point, id string) string {
	b := make([]byte, 0, 128)
	port, _ := strconv.ParseUint(p.Tag("port"), 10, 16)
	b = binary.BigEndian.AppendUint16(b, uint16(port))
	address := p.Tag("address")
	plain, _, _ := strings.Cut(address, "%")
	if ip, err := netip.ParseAddr(plain); err == nil {
		b = append(b, byte(ip.BitLen()/8))
		b = append(b, ip.AsSlice()...)
	}
	b = append(append(b, address...), 0)
	b = append(append(b, p.Tag("netns")...), 0)
	return string(append(b, id...))
}

// hostPort joins an address and a port as people write them.
func hostPort(address, port string) string {
	if address == "" {
		return port
	}
	return net.JoinHostPort(address, port)
}

// fieldText returns a field as text, or "".
func fieldText(p *metric.Point, key string) string {
	if v, ok := p.Field(key); ok {
		return v.String()
	}
	return ""
}

// fieldNumber returns a numeric field, or 0.
func fieldNumber(p *metric.Point, key string) float64 {
	v, _ := p.Field(key)
	n, _ := v.Number()
	return n
}

func fieldUint(p *metric.Point, key string) uint64 {
	if n := fieldNumber(p, key); n > 0 && n < math.MaxInt64 {
		return uint64(n)
	}
	return 0
}

// fieldTime returns a field in Unix seconds as a time, or the zero time.
func fieldTime(p *metric.Point, key string) time.Time {
	n := fieldNumber(p, key)
	if !(n > 0 && n < 1<<40) {
		return time.Time{}
	}
	return time.UnixMilli(int64(n * 1000)).UTC()
}

// A searchable is a point as a query sees it.
type searchable struct {
	point *metric.Point
	lower string // the values that everyone may see, in lower case, one per line
	inner string // the values that only trusted readers may see
}

func newSearchable(p *metric.Point) searchable {
	s := searchable{point: p}
	var lower, inner strings.Builder
	for _, t := range p.Tags {
		addLine(&lower, &inner, visibility(t.Key, metric.KindString, true), t.Value)
	}
	for _, f := range p.Fields {
		if f.Value.Kind() == metric.KindString || f.Key == "pid" {
			addLine(&lower, &inner, visibility(f.Key, f.Value.Kind(), false), f.Value.String())
		}
	}
	s.lower, s.inner = strings.ToLower(lower.String()), strings.ToLower(inner.String())
	return s
}

func addLine(lower, inner *strings.Builder, v audience, value string) {
	switch v {
	case everyone:
		lower.WriteString(value + "\n")
	case trustedOnly:
		inner.WriteString(value + "\n")
	}
}

// value returns the value of a key, and false if the reader may not see it or it is absent.
func (s *searchable) value(key string, trusted bool) (string, bool) {
	if v := s.point.Tag(key); v != "" {
		return v, visibility(key, metric.KindString, true).includes(trusted)
	}
	if v, ok := s.point.Field(key); ok {
		return v.String(), visibility(key, v.Kind(), false).includes(trusted)
	}
	if key == "exposure" && isListener(s.point) {
		return noExposure, true
	}
	return "", false
}

// same reports whether two points have the same name, tags and fields.
func same(p, q *metric.Point) bool {
	if p.Name != q.Name || len(p.Tags) != len(q.Tags) || len(p.Fields) != len(q.Fields) {
		return false
	}
	for i := range p.Tags {
		if p.Tags[i] != q.Tags[i] {
			return false
		}
	}
	for i := range p.Fields {
		if p.Fields[i] != q.Fields[i] {
			return false
		}
	}
	return true
}
