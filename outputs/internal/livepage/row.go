package livepage

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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
	ID      string // 32 hex digits: hash of source, name and tags
	Source  string // of the batch
	Address string // with the port, as people write it: "[::]:443"
	Netns   string

	Exposure string // "public", "private", "link_local", "loopback" or "none"
	Process  string // "" if unknown
	PID      string
	User     string
	Where    string // unit, user unit, container or pod
	Owner    string // "resolved", "pending", ...
	Expected string // "yes", "no", "forbidden", "undecided"; "": no rules
	Rule     string

	Queue       uint64 // connections waiting for accept
	QueueLimit  uint64 // 0: not known
	Established string
	Since       time.Time // first seen; zero: it listened before sockwatch did
	Started     time.Time // when its process was started; zero: not known
	Changed     time.Time // when it last changed, or its process was started; zero: not known

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

// newRow returns the row of a listener.
func newRow(source string, p *metric.Point) *row {
	r := &row{
		ID: identity(source, p), Source: source, searchable: newSearchable(p),
		Address: hostPort(p.Tag("address"), p.Tag("port")), Netns: p.Tag("netns"),
		Exposure: cmp.Or(p.Tag("exposure"), noExposure), Process: p.Tag("process"), PID: fieldText(p, "pid"), User: p.Tag("user"),
		Where:    cmp.Or(p.Tag("unit"), p.Tag("user_unit"), p.Tag("container"), p.Tag("pod")),
		Owner:    p.Tag("owner"),
		Expected: fieldText(p, "expected"), Rule: fieldText(p, "rule"),
		Queue: fieldUint(p, "backlog"), QueueLimit: fieldUint(p, "backlog_limit"), Established: fieldText(p, "established"),
		Since: fieldTime(p, "first_seen_time_seconds"), Started: fieldTime(p, "process_start_time_seconds"), Changed: fieldTime(p, "changed_time_seconds"),
	}
	if r.Started.After(r.Changed) {
		r.Changed = r.Started
	}
	if c := p.Tag("container"); c != "" && r.Where != c {
		r.Where += " " + c
	}
	r.order = rowOrder(p, r.ID)
	r.lower += "\n" + strings.ToLower(r.Address)
	return r
}

// QueueShare returns a part of the limit of the accept queue.
func (r *row) QueueShare(percent uint64) uint64 { return r.QueueLimit * percent / 100 }

// since returns the earliest time that is known of the row: it has listened for that long,
// or, if that is not known, its process has run for that long.
func (r *row) since() time.Time {
	if r.Since.IsZero() {
		return r.Started
	}
	return r.Since
}

// NoProcess returns why the row has no process.
func (r *row) NoProcess() string {
	switch r.Owner {
	case "none":
		return "no process"
	case "":
		return "unknown"
	default:
		return "owner " + r.Owner
	}
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

// text implements subject.
func (s *searchable) text(trusted bool) string {
	if trusted && s.inner != "" {
		return s.lower + "\n" + s.inner
	}
	return s.lower
}

// value implements subject.
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
