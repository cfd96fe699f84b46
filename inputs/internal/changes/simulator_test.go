package changes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/inputs/internal/inet"

	"github.com/google/go-cmp/cmp"
)

// A simHost is a host with services, and a sockwatch that scans it every 10 s.
type simHost struct {
	t       *testing.T
	options Options
	tracker *Tracker
	crashes bool // sockwatch is killed and started again before every scan

	now        Moment
	scanned    bool
	changed    bool // since the last scan
	failing    bool // every scan fails
	scope      string
	namespaces []Namespace
	records    map[string]json.RawMessage
	shortLived []ShortLived
	sockets    []*simSocket
	events     []metric.Point

	pids, cookies int
	public        bool // the host has a public address
	unreadable    bool // its addresses cannot be read
}

// A simProcess is a process that may listen.
type simProcess struct {
	name, unit, exe string
	uid             uint32
	container       string
	manager         bool
	pid             int
	start           uint64
}

// A simSocket is a listening socket, and what sockwatch can see of its holders.
type simSocket struct {
	at      Endpoint
	id      SocketID
	uid     uint32
	status  Status // Known: see holders
	holders []*simProcess
}

const simInterval = 10 * time.Second

func simOptions() Options {
	return Options{
		Point: "tcp_listen", Settle: time.Minute, SettleBoot: 5 * time.Minute, OwnerWait: 30 * time.Second,
		Remember: 720 * time.Hour, MaxKnown: 10_000, MaxPerUser: 1000,
	}
}

func newSimHost(t *testing.T) *simHost {
	h := &simHost{t: t, options: simOptions(), pids: 100, public: true, records: make(map[string]json.RawMessage)}
	h.now = Moment{Time: time.Unix(1_800_000_000, 0), Mono: time.Hour, Uptime: time.Hour, Boot: "boot 1"}
	h.namespaces = []Namespace{{Name: "", View: "netlink"}}
	h.tracker = New(h.options)
	return h
}

// night runs a scenario twice: with a sockwatch that runs all the time, and with one that is
// killed and restarted before every scan. Both must report the same events.
func night(t *testing.T, play func(h *simHost)) {
	t.Helper()
	for _, crashes := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarting"}[crashes], func(t *testing.T) {
			if crashes && testing.Short() {
				t.Skip("restarts before every scan, as random histories do now and then")
			}
			h := newSimHost(t)
			h.crashes = crashes
			play(h)
		})
	}
}

// process starts a process.
func (h *simHost) process(name string) *simProcess {
	h.pids++
	return &simProcess{
		name: name, unit: name + ".service", exe: "/usr/sbin/" + name, uid: 33,
		pid: h.pids, start: uint64(h.pids) * 100,
	}
}

func (h *simHost) systemd() *simProcess {
	return &simProcess{name: "systemd", exe: "/usr/lib/systemd/systemd", manager: true, pid: 1, start: 1}
}

// again starts another process of the same service.
func (h *simHost) again(p *simProcess) *simProcess {
	h.pids++
	next := *p
	next.pid, next.start = h.pids, uint64(h.pids)*100
	return &next
}

// parseEndpoint reads "0.0.0.0:80", "[::]:80" or "netns/0.0.0.0:80".
func parseEndpoint(text string) Endpoint {
	netns := ""
	if i := strings.IndexByte(text, '/'); i >= 0 {
		netns, text = text[:i], text[i+1:]
	}
	i := strings.LastIndexByte(text, ':')
	port, err := strconv.Atoi(text[i+1:])
	if err != nil {
		panic(err)
	}
	return Endpoint{Netns: netns, Address: strings.Trim(text[:i], "[]"), Port: uint16(port)}
}

// listen opens a socket that a process holds.
func (h *simHost) listen(at string, holders ...*simProcess) *simSocket {
	h.cookies++
	s := &simSocket{at: parseEndpoint(at), id: SocketID{Netns: 1, Cookie: uint64(h.cookies), Inode: uint64(h.cookies) + 5000}, status: Known, uid: 33}
	s.hold(holders...)
	if len(holders) > 0 {
		s.uid = holders[0].uid
	}
	h.sockets, h.changed = append(h.sockets, s), true
	return s
}

// hold sets the holders, in order.
func (s *simSocket) hold(holders ...*simProcess) {
	slices.SortFunc(holders, func(a, b *simProcess) int {
		if a.manager != b.manager {
			return btoi(a.manager) - btoi(b.manager)
		}
		return int(a.start) - int(b.start)
	})
	s.holders = holders
}

func (h *simHost) close(sockets ...*simSocket) {
	h.sockets = slices.DeleteFunc(h.sockets, func(s *simSocket) bool { return slices.Contains(sockets, s) })
	h.changed = true
}

func (h *simHost) closeAll() { h.sockets, h.changed = nil, true }

// set changes a socket.
func (h *simHost) set(s *simSocket, change func(*simSocket)) { change(s); h.changed = true }

// openBriefly adds a socket that only a quick scan sees, and no complete one.
func (h *simHost) openBriefly(at string, p *simProcess) {
	s := h.listen(at, p)
	h.close(s)
	h.shortLived = append(h.shortLived, ShortLived{Time: h.now.Time, Socket: h.socket(s)})
}

func (h *simHost) socket(s *simSocket) Socket {
	v := Socket{Endpoint: s.at, ID: s.id, UID: s.uid, Status: s.status, Exposure: h.exposure(s.at), ExposureUnknown: h.unreadable}
	process, unit, container, owner := "", "", "", "unreadable"
	if s.status == Known {
		owner = "resolved"
		for _, p := range s.holders {
			v.Holders = append(v.Holders, p.holder())
		}
		p := s.holders[0]
		process, unit, container = p.name, p.unit, p.container
	}
	v.Tags = metric.NewTags("address", s.at.Address, "container", container, "exposure", v.Exposure.String(), "netns", s.at.Netns,
		"family", "ipv4", "owner", owner, "port", strconv.Itoa(int(s.at.Port)), "process", process, "unit", unit, "user", fmt.Sprintf("user%d", s.uid))
	return v
}

func (p *simProcess) holder() Holder {
	return Holder{
		PID: p.pid, Start: p.start, Manager: p.manager,
		Key:   Key{Process: p.name, UID: p.uid, Unit: p.unit, InContainer: p.container != ""},
		Facts: Facts{Exe: p.exe, Start: time.Unix(1_700_000_000+int64(p.start), 0)},
	}
}

func (h *simHost) exposure(at Endpoint) inet.Class {
	switch {
	case h.unreadable:
		return inet.Nowhere
	case strings.HasPrefix(at.Address, "127.") || at.Address == "::1":
		return inet.Loopback
	case strings.HasPrefix(at.Address, "10."):
		return inet.Private
	case h.public:
		return inet.Public
	}
	return inet.Private
}

// pass lets time pass, with a scan every 10 s.
func (h *simHost) pass(d time.Duration) {
	h.t.Helper()
	for ; d > 0; d -= simInterval {
		h.sleep(min(d, simInterval), 0)
		h.scan()
	}
}

// sleep lets time pass without a scan. suspended is the part for which the host sleeps.
func (h *simHost) sleep(d, suspended time.Duration) {
	h.now.Time = h.now.Time.Add(d)
	h.now.Uptime += d
	h.now.Mono += d - suspended
}

// boot reboots the host, without any services.
func (h *simHost) boot(after time.Duration) {
	h.stop()
	h.now.Time = h.now.Time.Add(after)
	h.now.Boot += "'"
	h.now.Mono, h.now.Uptime = 20*time.Second, 20*time.Second
	h.pids, h.cookies = 100, 0 // numbers are reused
	h.sockets = nil
	h.restore()
}

// stop ends sockwatch cleanly.
func (h *simHost) stop() { h.write(h.tracker.Stop()) }

// restore starts sockwatch again.
func (h *simHost) restore() {
	h.tracker, h.scanned = New(h.options), false
	if damaged := h.tracker.Restore(maps.Clone(h.records)); damaged > 0 {
		h.t.Fatalf("%d records are damaged", damaged)
	}
}

func (h *simHost) write(set map[string]json.RawMessage) {
	for key, record := range set {
		if record == nil {
			delete(h.records, key)
		} else {
			h.records[key] = record
		}
	}
}

// scan scans the host.
func (h *simHost) scan() {
	h.t.Helper()
	if h.failing {
		return
	}
	if h.crashes && h.scanned {
		h.stop()
		h.restore()
	}
	pending := slices.ContainsFunc(h.sockets, func(s *simSocket) bool { return s.status == Pending })
	if h.scanned && !h.changed && !pending && !h.tracker.Unchanged(h.now) {
		return
	}
	h.scanned, h.changed = true, false
	s := &Snapshot{Moment: h.now, Scope: h.scope, Namespaces: h.namespaces, ShortLived: h.shortLived}
	for _, socket := range h.sockets {
		s.Sockets = append(s.Sockets, h.socket(socket))
	}
	result := h.tracker.Observe(s)
	h.shortLived = nil
	h.write(result.Set)
	h.events = append(h.events, result.Events...)
	schematest.Events(h.t, result.Events)
}

// line summarizes an event: kind, endpoint and owner.
func line(p *metric.Point) string {
	where := p.Tag("address") + ":" + p.Tag("port")
	if strings.Contains(p.Tag("address"), ":") {
		where = "[" + p.Tag("address") + "]:" + p.Tag("port")
	}
	if netns := p.Tag("netns"); netns != "" {
		where = netns + "/" + where
	}
	text := p.Tag("event") + " " + where
	if process := p.Tag("process"); process != "" {
		text += " " + process
	}
	if previous, ok := p.Field("previous_process"); ok {
		text += " after " + previous.AsString()
	}
	if previous, ok := p.Field("previous_address"); ok {
		text += " from " + previous.AsString()
	}
	if changed, ok := p.Field("exe_changed"); ok && changed.AsBool() {
		text += ", another exe"
	}
	if n, ok := p.Field("count"); ok {
		text = fmt.Sprintf("%s of %s x %d", p.Tag("event"), p.Tag("user"), n.AsInt())
	}
	return text
}

// wants compares all events since the last call with the wanted lines.
func (h *simHost) wants(want ...string) []metric.Point {
	h.t.Helper()
	events := h.events
	h.events = nil
	var got []string
	for i := range events {
		got = append(got, line(&events[i]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Fatalf("events (-want +got)\n%s", diff)
	}
	return events
}

// field returns a field of an event as text, or "absent".
func field(p *metric.Point, key string) string {
	v, ok := p.Field(key)
	if !ok {
		return "absent"
	}
	return v.String()
}

// hasFields compares fields of an event with pairs of key and value.
func hasFields(t *testing.T, p *metric.Point, want ...string) {
	t.Helper()
	var got []string
	for i := 0; i < len(want); i += 2 {
		got = append(got, want[i], field(p, want[i]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields of %s (-want +got)\n%s", line(p), diff)
	}
}

// hasTime compares the time of an event, to the second.
func hasTime(t *testing.T, p *metric.Point, want time.Time) {
	t.Helper()
	if !p.Time.Equal(want) {
		t.Errorf("%s at %v, want %v", line(p), p.Time, want)
	}
}
