package changes

import (
	"fmt"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"

	"github.com/google/go-cmp/cmp"
)

func TestLifeOfAnEndpoint(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		nginx := h.process("nginx")
		s := h.listen("0.0.0.0:80", nginx)
		h.pass(10 * time.Second)
		first := h.now.Time
		events := h.wants("opened 0.0.0.0:80 nginx")
		hasTime(t, &events[0], first)
		if firstSeen, changed := h.tracker.Times(s.at, s.id); firstSeen != first.Unix() || changed != first.Unix() {
			t.Errorf("first seen %d, changed %d, want both %d", firstSeen, changed, first.Unix())
		}
		h.pass(5 * time.Minute)
		h.close(s)
		h.pass(10 * time.Second)
		gone := h.now.Time
		h.pass(50 * time.Second)
		h.wants()
		h.pass(10 * time.Second)
		events = h.wants("closed 0.0.0.0:80 nginx")
		hasTime(t, &events[0], gone)
		hasFields(t, &events[0], "age_seconds", "310", "window_seconds", "10", "while_down", fmt.Sprint(h.crashes), "pid", fmt.Sprint(nginx.pid))
		h.pass(24 * time.Hour)
		s = h.listen("0.0.0.0:80", h.process("apache2"))
		h.pass(10 * time.Second)
		h.wants("returned 0.0.0.0:80 apache2")
		if firstSeen, changed := h.tracker.Times(s.at, s.id); firstSeen != h.now.Time.Unix() || changed != firstSeen {
			t.Errorf("first seen %d, changed %d, want both %d", firstSeen, changed, h.now.Time.Unix())
		}
	})
}

func TestForgottenEndpointOpensAgain(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.close(s)
		h.pass(2 * time.Minute)
		h.wants("closed 0.0.0.0:80 nginx")
		h.sleep(721*time.Hour, 0)
		h.scan()
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.wants("opened 0.0.0.0:80 nginx")
	})
}

// TestEventSaysWhatAnIncidentNeeds checks every field and every tag of an event.
func TestEventSaysWhatAnIncidentNeeds(t *testing.T) {
	now := Moment{Time: time.Unix(1_800_000_000, 0), Mono: time.Hour, Uptime: time.Hour, Boot: "b"}
	o := simOptions()
	o.Expected = []string{"no", "yes"}
	tracker := New(o)
	namespaces := []Namespace{{View: "netlink"}}
	tracker.Observe(&Snapshot{Moment: now, Namespaces: namespaces})
	now.Time, now.Mono, now.Uptime = now.Time.Add(10*time.Second), now.Mono+10*time.Second, now.Uptime+10*time.Second
	events := tracker.Observe(&Snapshot{Moment: now, Namespaces: namespaces, Sockets: []Socket{{
		Endpoint: Endpoint{Address: "0.0.0.0", Port: 31337}, ID: SocketID{1, 2, 3}, UID: 33, Exposure: inet.Public, Status: Known,
		Holders: []Holder{{PID: 7, Start: 70, Key: Key{Process: "nc", UID: 33}, Facts: Facts{
			Exe: "/tmp/nc", ExeDeleted: true, ExeSHA256: "abc", Start: time.UnixMilli(1_799_999_999_500),
			Parent: Parent{PID: 6, Process: "sh", Exe: "/bin/dash"}, LoginUID: 1000, HasLoginUID: true, Cmdline: "nc -l",
		}}},
		Tags:    metric.NewTags("address", "0.0.0.0", "exposure", "public", "port", "31337", "process", "nc"),
		Verdict: Verdict{Expected: "no", Rule: "web", Why: "the public site"},
	}}}).Events
	want := []metric.Point{{
		Name: "tcp_listen_event", Time: now.Time,
		Tags: metric.NewTags("address", "0.0.0.0", "event", "opened", "expected", "no", "exposure", "public", "port", "31337", "process", "nc"),
		Fields: []metric.Field{
			{Key: "uid", Value: metric.Uint(33)},
			{Key: "pid", Value: metric.Int(7)},
			{Key: "process_start_time_seconds", Value: metric.Float(1_799_999_999.5)},
			{Key: "exe", Value: metric.String("/tmp/nc")},
			{Key: "exe_deleted", Value: metric.Bool(true)},
			{Key: "exe_sha256", Value: metric.String("abc")},
			{Key: "parent_pid", Value: metric.Int(6)},
			{Key: "parent_process", Value: metric.String("sh")},
			{Key: "parent_exe", Value: metric.String("/bin/dash")},
			{Key: "login_uid", Value: metric.Uint(1000)},
			{Key: "cmdline", Value: metric.String("nc -l")},
			{Key: "rule", Value: metric.String("web")},
			{Key: "why", Value: metric.String("the public site")},
			{Key: "while_down", Value: metric.Bool(false)},
			{Key: "window_seconds", Value: metric.Float(10)},
		},
	}}
	if diff := cmp.Diff(want, events, cmp.AllowUnexported(metric.Value{})); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestSameNameFromAnotherBinary(t *testing.T) {
	night(t, func(h *simHost) {
		sshd := h.process("sshd")
		s := h.listen("0.0.0.0:22", sshd)
		h.pass(time.Minute)
		h.close(s)
		fake := h.again(sshd)
		fake.exe = "/tmp/sshd"
		h.listen("0.0.0.0:22", fake)
		h.pass(time.Minute)
		events := h.wants("restarted 0.0.0.0:22 sshd, another exe")
		hasFields(t, &events[0], "exe", "/tmp/sshd", "previous_exe", "/usr/sbin/sshd", "previous_pid", fmt.Sprint(sshd.pid), "down_seconds", "10")
	})
}

func TestAnotherProgramOnThePort(t *testing.T) {
	night(t, func(h *simHost) {
		nginx := h.process("nginx")
		s := h.listen("0.0.0.0:80", nginx)
		h.pass(time.Minute)
		h.close(s)
		h.pass(20 * time.Second)
		s = h.listen("0.0.0.0:80", h.process("miner"))
		h.pass(10 * time.Second)
		events := h.wants("owner_changed 0.0.0.0:80 miner after nginx, another exe")
		hasTime(t, &events[0], h.now.Time)
		hasFields(t, &events[0], "down_seconds", "30", "previous_unit", "nginx.service", "previous_user", "user33",
			"previous_user_unit", "absent", "previous_container", "absent", "previous_exe", "/usr/sbin/nginx")
		if firstSeen, changed := h.tracker.Times(s.at, s.id); firstSeen != h.now.Time.Unix() || changed != firstSeen {
			t.Errorf("first seen %d, changed %d, want both %d", firstSeen, changed, h.now.Time.Unix())
		}
		h.close(s)
		h.pass(2 * time.Minute)
		h.listen("0.0.0.0:80", nginx)
		h.pass(time.Minute)
		h.wants("closed 0.0.0.0:80 miner", "returned 0.0.0.0:80 nginx") // after settle
	})
}

func TestKeyDiffersByUserUnitAndContainer(t *testing.T) {
	for name, change := range map[string]func(p *simProcess){
		"user":      func(p *simProcess) { p.uid = 0 },
		"unit":      func(p *simProcess) { p.unit = "rogue.service" },
		"container": func(p *simProcess) { p.container = "0123456789ab" },
	} {
		h := newSimHost(t)
		nginx := h.process("nginx")
		s := h.listen("0.0.0.0:80", nginx)
		h.pass(time.Minute)
		h.close(s)
		next := h.again(nginx)
		change(next)
		h.listen("0.0.0.0:80", next)
		h.pass(time.Minute)
		t.Log(name)
		h.wants("owner_changed 0.0.0.0:80 nginx after nginx")
	}
}

func TestSecondProgramThatSharesThePort(t *testing.T) {
	night(t, func(h *simHost) {
		nginx := h.process("nginx")
		h.listen("0.0.0.0:80", nginx)
		h.pass(time.Minute)
		thief := h.process("thief")
		s := h.listen("0.0.0.0:80", thief)
		h.pass(5 * time.Minute)
		events := h.wants("owner_changed 0.0.0.0:80 thief after nginx, another exe")
		hasFields(t, &events[0], "down_seconds", "0", "previous_pid", fmt.Sprint(nginx.pid))
		h.close(s)
		h.pass(10 * time.Second)
		gone := h.now.Time
		h.pass(5 * time.Minute)
		events = h.wants("owner_changed 0.0.0.0:80 nginx after thief, another exe")
		hasTime(t, &events[0], gone)
	})
}

func TestClosedNamesWhoWasThereLast(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:80", h.process("nginx"))
		second := h.listen("0.0.0.0:80", h.process("second"))
		h.pass(time.Minute)
		h.close(second)
		h.pass(20 * time.Second)
		h.close(s)
		h.pass(5 * time.Minute)
		h.wants("closed 0.0.0.0:80 nginx")
	})
}

func TestOlderProgramThatSharesThePortIsNamed(t *testing.T) {
	night(t, func(h *simHost) {
		sleeper := h.process("sleeper")
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.listen("0.0.0.0:80", sleeper)
		h.pass(5 * time.Minute)
		h.wants("owner_changed 0.0.0.0:80 sleeper after nginx, another exe")
	})
}

func TestHolderThatLeftThePortToAChild(t *testing.T) {
	night(t, func(h *simHost) {
		parent := h.process("app")
		s := h.listen("0.0.0.0:80", parent)
		h.pass(time.Minute)
		child := h.process("sh")
		h.set(s, func(s *simSocket) { s.hold(parent, child) })
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.status = Pending }) // the parent has exited
		h.pass(10 * time.Second)
		first := h.now.Time
		h.set(s, func(s *simSocket) { s.status = Known; s.hold(child) })
		h.pass(time.Minute)
		events := h.wants("owner_changed 0.0.0.0:80 sh after app, another exe")
		hasTime(t, &events[0], first)
		hasFields(t, &events[0], "down_seconds", "0")
	})
}

func TestEventsWaitForTheSearchForTheOwner(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		ended, endless := h.listen("0.0.0.0:81", h.process("app")), h.listen("0.0.0.0:82", h.process("app"))
		second := h.listen("0.0.0.0:80", h.process("thief"))
		ended.status, endless.status, second.status = Pending, Pending, Pending
		h.pass(10 * time.Second)
		first := h.now.Time
		h.pass(10 * time.Second)
		h.wants()
		h.set(ended, func(s *simSocket) { s.status = Known })
		h.set(second, func(s *simSocket) { s.status = Known })
		h.pass(10 * time.Second)
		events := h.wants("owner_changed 0.0.0.0:80 thief after nginx, another exe", "opened 0.0.0.0:81 app")
		hasTime(t, &events[0], first)
		hasTime(t, &events[1], first)
		h.pass(10 * time.Second) // owner_wait is over
		events = h.wants("opened 0.0.0.0:82")
		hasTime(t, &events[0], first)
		h.set(endless, func(s *simSocket) { s.status = Known })
		h.pass(time.Minute)
		h.wants()
	})
}

func TestUnknownOwnerIsComparedWhenItIsKnown(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.close(s)
		s = h.listen("0.0.0.0:80", h.process("miner"))
		s.status = Unknown
		h.pass(time.Minute)
		h.wants("restarted 0.0.0.0:80")
		h.set(s, func(s *simSocket) { s.status = Known })
		h.pass(time.Minute)
		h.wants("owner_changed 0.0.0.0:80 miner after nginx, another exe")
	})
}

func TestListenerThatIsGoneBeforeItsOwnerIsKnown(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		s := h.listen("0.0.0.0:80", h.process("app"))
		s.status = Pending
		h.pass(10 * time.Second)
		first := h.now.Time
		h.close(s)
		h.pass(2 * time.Minute)
		events := h.wants("opened 0.0.0.0:80", "closed 0.0.0.0:80")
		hasTime(t, &events[0], first)
		hasTime(t, &events[1], first.Add(10*time.Second))
	})
}

func TestListenerThatLivesForThreeSeconds(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.sleep(3*time.Second, 0)
		seen := h.now.Time
		h.openBriefly("0.0.0.0:4444", h.process("nc"))
		h.openBriefly("0.0.0.0:22", h.process("thief"))
		h.pass(3 * time.Minute)
		events := h.wants(
			"owner_changed 0.0.0.0:22 thief after sshd, another exe", "opened 0.0.0.0:4444 nc",
			"owner_changed 0.0.0.0:22 sshd after thief, another exe", "closed 0.0.0.0:4444 nc")
		hasTime(t, &events[0], seen)
		hasTime(t, &events[1], seen)
		hasTime(t, &events[3], seen.Add(10*time.Second))
	})
}

func TestLoopbackThatBecomesPublic(t *testing.T) {
	night(t, func(h *simHost) {
		redis := h.process("redis")
		s := h.listen("127.0.0.1:6379", redis)
		six := h.listen("[::1]:6379", redis)
		h.pass(time.Minute)
		h.close(s, six)
		h.pass(20 * time.Second)
		h.listen("0.0.0.0:6379", h.again(redis))
		h.pass(10 * time.Second)
		events := h.wants("exposure_changed 0.0.0.0:6379 redis from 127.0.0.1")
		hasTime(t, &events[0], h.now.Time)
		hasFields(t, &events[0], "previous_exposure", "loopback", "cause", "rebound")
		h.pass(5 * time.Minute)
		h.wants("closed [::1]:6379 redis")
	})
}

func TestReboundWaitsForTheOwner(t *testing.T) {
	night(t, func(h *simHost) {
		redis := h.process("redis")
		s := h.listen("127.0.0.1:6379", redis)
		h.pass(time.Minute)
		h.close(s)
		h.pass(50 * time.Second)
		s = h.listen("0.0.0.0:6379", h.again(redis))
		s.status = Pending
		h.pass(20 * time.Second) // more than settle since it left
		h.wants()
		h.set(s, func(s *simSocket) { s.status = Known })
		h.pass(5 * time.Minute)
		h.wants("exposure_changed 0.0.0.0:6379 redis from 127.0.0.1")
	})
}

func TestAnotherProgramOnAnotherAddressIsNotRebound(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("127.0.0.1:6379", h.process("redis"))
		h.pass(time.Minute)
		h.close(s)
		h.listen("0.0.0.0:6379", h.process("miner"))
		h.pass(5 * time.Minute)
		h.wants("opened 0.0.0.0:6379 miner", "closed 127.0.0.1:6379 redis")
	})
}

func TestExposureThatWidensToPublicIsReportedAtOnce(t *testing.T) {
	night(t, func(h *simHost) {
		h.public = false
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.public, h.changed = true, true
		h.pass(10 * time.Second)
		events := h.wants("exposure_changed 0.0.0.0:22 sshd")
		hasFields(t, &events[0], "previous_exposure", "private", "cause", "host_address", "previous_address", "absent")
		h.public, h.changed = false, true
		h.pass(10 * time.Second)
		first := h.now.Time
		h.pass(50 * time.Second)
		h.wants()
		h.pass(10 * time.Second)
		events = h.wants("exposure_changed 0.0.0.0:22 sshd")
		hasTime(t, &events[0], first)
		hasFields(t, &events[0], "previous_exposure", "public")
	})
}

func TestRestartAndExposureInOneScan(t *testing.T) {
	night(t, func(h *simHost) {
		h.public = false
		sshd := h.process("sshd")
		s := h.listen("0.0.0.0:22", sshd)
		h.pass(time.Minute)
		h.public = true
		h.close(s)
		h.listen("0.0.0.0:22", h.again(sshd))
		h.pass(10 * time.Second)
		h.wants("restarted 0.0.0.0:22 sshd", "exposure_changed 0.0.0.0:22 sshd")
	})
}

func TestChangesWhileDownAreReported(t *testing.T) {
	h := newSimHost(t)
	nginx := h.process("nginx")
	s := h.listen("0.0.0.0:80", nginx)
	gone := h.listen("0.0.0.0:81", nginx)
	h.pass(time.Minute)
	h.stop()
	h.close(s, gone)
	h.listen("0.0.0.0:80", h.again(nginx))
	h.listen("0.0.0.0:82", h.process("app"))
	h.sleep(time.Hour, 0)
	h.restore()
	h.pass(3 * time.Minute)
	events := h.wants("restarted 0.0.0.0:80 nginx", "opened 0.0.0.0:82 app", "closed 0.0.0.0:81 nginx")
	for i := range events {
		hasFields(t, &events[i], "while_down", "true", "window_seconds", "3610")
	}
}

func TestOrderIsByNamespacePortAndAddress(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "blue"})
		h.pass(time.Minute)
		p := h.process("app")
		for _, at := range []string{"blue/0.0.0.0:1", "[::]:80", "10.0.0.10:80", "10.0.0.9:80", "10.0.0.9%eth0:80", "0.0.0.0:443"} {
			h.listen(at, p)
		}
		h.pass(time.Minute)
		h.wants("opened 10.0.0.9:80 app", "opened 10.0.0.9%eth0:80 app", "opened 10.0.0.10:80 app", "opened [::]:80 app",
			"opened 0.0.0.0:443 app", "opened blue/0.0.0.0:1 app")
	})
}

func TestTooManyOfOneUserAreCounted(t *testing.T) {
	h := newSimHost(t)
	h.options.MaxPerUser = 3
	h.tracker = New(h.options)
	h.pass(time.Minute)
	flood := h.process("flood")
	flood.uid = 1000
	for i := range 10 {
		h.listen(fmt.Sprintf("127.0.0.1:%d", 1000+i), flood)
	}
	h.listen("0.0.0.0:1337", flood) // the one that matters
	h.listen("0.0.0.0:80", h.process("nginx"))
	h.pass(time.Minute)
	events := h.wants("opened 0.0.0.0:80 nginx", "opened 127.0.0.1:1000 flood", "opened 127.0.0.1:1001 flood",
		"opened 0.0.0.0:1337 flood", "opened of user1000 x 8")
	hasFields(t, &events[4], "uid", "1000", "pid", "absent")
	h.closeAll()
	h.pass(3 * time.Minute)
	h.wants("closed 0.0.0.0:80 nginx", "closed 127.0.0.1:1000 flood", "closed 127.0.0.1:1001 flood",
		"closed 0.0.0.0:1337 flood", "closed of user1000 x 8")
}

func TestFirstScanOfARunIsNotLimited(t *testing.T) {
	h := newSimHost(t)
	h.options.MaxPerUser = 3
	h.tracker = New(h.options)
	h.pass(time.Minute)
	h.stop()
	h.restore()
	for i := range 5 {
		h.listen(fmt.Sprintf("127.0.0.1:%d", 1000+i), h.process("app"))
	}
	h.scan()
	if len(h.events) != 5 {
		t.Errorf("%d events, want 5", len(h.events))
	}
}

func TestTotalsKeepTheirSeries(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		total := func() (lines []string) {
			for _, p := range h.tracker.Totals() {
				lines = append(lines, fmt.Sprintf("%s %s %s %s", p.Name, p.Tag("event"), p.Tag("expected"), field(&p, "total")))
			}
			return lines
		}
		want := []string{
			"tcp_listen_events opened  1", "tcp_listen_events returned  0", "tcp_listen_events closed  0",
			"tcp_listen_events restarted  0", "tcp_listen_events owner_changed  0", "tcp_listen_events exposure_changed  0",
		}
		if diff := cmp.Diff(want, total()); diff != "" {
			t.Errorf("totals (-want +got)\n%s", diff)
		}
		h.options.Expected = []string{"yes", "no"}
		h.tracker.Reconfigure(h.options)
		h.scan()
		got := total()
		if len(got) != 6*3 || got[0] != want[0] || got[1] != "tcp_listen_events opened no 0" || got[2] != "tcp_listen_events opened yes 0" {
			t.Errorf("totals with rules: %q", got)
		}
	})
}

// The totals say since when they count, also after a restart.
func TestTotalsCountSinceTheFirstScan(t *testing.T) {
	h := newSimHost(t)
	first := h.now.Time
	h.scan()
	for _, when := range []string{"at the first scan", "later", "after a restart", "after a scan"} {
		for _, p := range h.tracker.Totals() {
			if !p.Start.Equal(first) {
				t.Errorf("%s: %s counts since %v, want %v", when, p.Series(), p.Start, first)
			}
		}
		switch when {
		case "at the first scan":
			h.pass(time.Hour)
		case "later":
			h.stop()
			h.restore()
		case "after a restart":
			h.pass(time.Hour)
		}
	}
}

func TestChangedTimeEndsAfterADay(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		s := h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(10 * time.Second)
		opened := h.now.Time.Unix()
		h.pass(24*time.Hour - 20*time.Second)
		if _, changed := h.tracker.Times(s.at, s.id); changed != opened {
			t.Errorf("changed %d, want %d", changed, opened)
		}
		h.pass(20 * time.Second)
		if _, changed := h.tracker.Times(s.at, s.id); changed != 0 {
			t.Errorf("changed %d after a day, want 0", changed)
		}
	})
}

func TestTimesOfAVersionBeforeAreKept(t *testing.T) {
	h := newSimHost(t)
	h.tracker.Import(map[string]int64{
		`uid=0 address="0.0.0.0" family="ipv4" port="80" process="nginx" unit="a b\"c" `: 1234,
		`uid=0 address="0.0.0.0" family="ipv4" port="81" process="other" `:               99,
		`no key`: 1,
	})
	a, b := h.listen("0.0.0.0:80", h.process("nginx")), h.listen("0.0.0.0:81", h.process("nginx"))
	h.pass(time.Minute)
	h.wants()
	if firstSeen, _ := h.tracker.Times(a.at, a.id); firstSeen != 1234 {
		t.Errorf("first seen %d, want 1234", firstSeen)
	}
	if firstSeen, _ := h.tracker.Times(b.at, b.id); firstSeen != 0 {
		t.Errorf("first seen %d of what was there at the beginning, want 0", firstSeen)
	}
}

func TestFirstSeenStaysThroughARestart(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		nginx := h.process("nginx")
		s := h.listen("0.0.0.0:80", nginx)
		h.pass(10 * time.Second)
		want := h.now.Time.Unix()
		h.pass(time.Minute)
		h.close(s)
		h.pass(30 * time.Second)
		s = h.listen("0.0.0.0:80", h.again(nginx))
		h.pass(time.Minute)
		if firstSeen, _ := h.tracker.Times(s.at, s.id); firstSeen != want {
			t.Errorf("first seen %d, want %d", firstSeen, want)
		}
	})
}

func TestSettleOfZeroReportsAtOnce(t *testing.T) {
	h := newSimHost(t)
	h.options.Settle = 0
	h.tracker = New(h.options)
	s := h.listen("0.0.0.0:80", h.process("nginx"))
	h.pass(time.Minute)
	h.close(s)
	h.pass(10 * time.Second)
	h.wants("closed 0.0.0.0:80 nginx")
}

// TestManyAddressesOfOnePortAreBounded limits the cost of a user who listens on many addresses
// of 127.0.0.0/8.
func TestManyAddressesOfOnePortAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("listens on 6,000 addresses")
	}
	h := newSimHost(t)
	h.options.MaxPerUser = 100_000
	h.tracker = New(h.options)
	const n = 2000
	listen := func(name string, second int) {
		h.closeAll()
		p := h.process(name)
		for i := range n {
			h.listen(fmt.Sprintf("127.%d.%d.%d:80", second, i/250, i%250+1), p)
		}
	}
	listen("first", 1)
	h.pass(10 * time.Second)
	listen("second", 2)
	h.pass(10 * time.Second)
	listen("second", 3)
	h.pass(10 * time.Second)
	got := make(map[string]int)
	for i := range h.events {
		got[h.events[i].Tag("event")]++
	}
	want := map[string]int{"opened": n + n - maxOrigins, "exposure_changed": maxOrigins}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestManyOwnersOfOnePortAreBounded(t *testing.T) {
	h := newSimHost(t)
	h.pass(10 * time.Second)
	for i := range 1000 {
		h.listen("0.0.0.0:80", h.process(fmt.Sprintf("p%d.x", i)))
	}
	h.pass(10 * time.Second)
	h.wants("opened 0.0.0.0:80 p999.x")
	if n := len(h.tracker.endpoints[parseEndpoint("0.0.0.0:80")].Owners); n != maxOwners {
		t.Errorf("%d owners, want %d", n, maxOwners)
	}
	h.pass(5 * time.Minute)
	h.wants()
}

func TestKernelIsAnOwnerLikeAnyOther(t *testing.T) {
	night(t, func(h *simHost) {
		nobody := h.process("")
		nfs := h.listen("0.0.0.0:2049", nobody)
		nfs.status = None
		h.pass(time.Minute)
		h.close(nfs)
		nfs = h.listen("0.0.0.0:2049", nobody)
		nfs.status = None
		h.pass(2 * time.Minute)
		h.wants("restarted 0.0.0.0:2049")
		h.close(nfs)
		h.listen("0.0.0.0:2049", h.process("rogue"))
		h.pass(2 * time.Minute)
		h.wants("owner_changed 0.0.0.0:2049 rogue")
	})
}

func TestUnexpectedEventsAreCollapsedLast(t *testing.T) {
	var events []*event
	for i, expected := range []string{"yes", "yes", "no", "yes", "undecided"} {
		events = append(events, &event{
			endpoint: Endpoint{Address: "0.0.0.0", Port: uint16(i + 1)}, kind: opened, exposure: inet.Public,
			shown: shown{UID: 7, Verdict: Verdict{Expected: expected}, Tags: metric.NewTags("user", "eve")},
		})
	}
	var got []string
	for _, e := range limit(events, 3) {
		got = append(got, fmt.Sprintf("%d %s x %d", e.endpoint.Port, e.shown.Verdict.Expected, e.count))
	}
	want := []string{"1 yes x 0", "3 no x 0", "5 undecided x 0", "0  x 2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestAddressThatIsTakenFirstHasOpened(t *testing.T) {
	night(t, func(h *simHost) {
		redis := h.process("redis")
		old := h.listen("127.0.0.1:6379", redis)
		h.pass(time.Minute)
		s := h.listen("0.0.0.0:6379", redis)
		s.status = Pending
		h.pass(10 * time.Second)
		h.close(old)
		h.pass(10 * time.Second)
		h.set(s, func(s *simSocket) { s.status = Known })
		h.pass(5 * time.Minute)
		h.wants("opened 0.0.0.0:6379 redis", "closed 127.0.0.1:6379 redis")
	})
}

func TestSuccessorOfAContainerMustBeKnown(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "4026532281"}, Namespace{Name: "4026532999"})
		s := h.listen("4026532281/0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.close(s)
		h.listen("4026532999/0.0.0.0:80", h.process("nginx")).status = Unknown
		h.pass(5 * time.Minute)
		h.wants("opened 4026532999/0.0.0.0:80", "closed 4026532281/0.0.0.0:80 nginx")
	})
}

func TestSearchForAnOwnerIsWaitedForOnce(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:80", h.process("app"))
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.status = Pending })
		h.pass(5 * time.Minute)
		h.set(s, func(s *simSocket) { s.status = Known; s.hold(h.process("sh")) })
		h.pass(10 * time.Second)
		events := h.wants("owner_changed 0.0.0.0:80 sh after app, another exe")
		hasTime(t, &events[0], h.now.Time)
	})
}
