package expect

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/inputs/internal/inet"
)

// A simulation scans listeners from time to time.
type simulation struct {
	t       testing.TB
	rules   *Rules
	tracker *Tracker
	records map[string]json.RawMessage // the content of the history

	clock     time.Time
	mono      time.Duration
	boot      string
	whileDown bool
	events    []string // all events so far
	last      []metric.Point
}

// simulate starts a simulation long after the boot.
func simulate(t testing.TB, rules string) *simulation {
	s := &simulation{
		t: t, rules: compile(t, rules), records: make(map[string]json.RawMessage), clock: now, mono: time.Hour, boot: "b1",
	}
	s.tracker = NewTracker(s.rules, trackerOptions)
	return s
}

var trackerOptions = TrackerOptions{
	Point: "tcp_listen", Loaded: now, Settle: time.Minute, SettleBoot: 5 * time.Minute, OwnerWait: 30 * time.Second,
}

// pass advances the time.
func (s *simulation) pass(d time.Duration) {
	s.clock, s.mono = s.clock.Add(d), s.mono+d
}

// scan performs a scan of the listeners, and returns the events, one per line.
func (s *simulation) scan(listeners ...*Listener) []string {
	s.t.Helper()
	l := &Scan{Moment: Moment{s.clock, s.mono, s.boot}, Window: 10 * time.Second, WhileDown: s.whileDown}
	s.whileDown = false
	for _, listener := range listeners {
		l.Listeners = append(l.Listeners, Judged{listener, s.rules.Verdict(listener, s.clock)})
	}
	result := s.tracker.Evaluate(l)
	for key, record := range result.Set {
		if !strings.HasPrefix(key, "r:") {
			s.t.Errorf("record %q", key)
		}
		if record == nil {
			delete(s.records, key)
		} else {
			s.records[key] = record
		}
	}
	s.check(result.Events)
	s.last = result.Events
	var lines []string
	for _, e := range result.Events {
		lines = append(lines, line(e))
	}
	s.events = append(s.events, lines...)
	return lines
}

// check checks that the points and events satisfy the contract of a batch.
func (s *simulation) check(events []metric.Point) {
	s.t.Helper()
	schematest.Events(s.t, events)
	schematest.Points(s.t, s.clock, s.tracker.Points())
	b := metric.Batch{Time: s.clock, Points: s.tracker.Points(), Events: events}
	if err := b.Check(); err != nil {
		s.t.Fatal(err)
	}
}

// line returns the most important parts of an event.
func line(e metric.Point) string {
	text := e.Tag("event")
	for _, key := range []string{"name", "address", "port", "process"} {
		if v := e.Tag(key); v != "" {
			text += " " + v
		}
	}
	return text
}

// restart restarts the program. Its history contains what was written.
func (s *simulation) restart() {
	s.tracker = NewTracker(s.rules, trackerOptions)
	s.tracker.Restore(maps.Clone(s.records))
	s.whileDown = true
}

// reboot reboots the host, and starts the program some time later.
func (s *simulation) reboot(after time.Duration) {
	s.clock = s.clock.Add(time.Minute + after)
	s.mono, s.boot = after, s.boot+"x"
	s.restart()
}

// reload replaces the rules of the tracker.
func (s *simulation) reload(rules string) {
	old := s.tracker
	s.rules = compile(s.t, rules)
	s.tracker = NewTracker(s.rules, trackerOptions)
	s.tracker.InheritFrom(old)
}

// points returns the points with a name, as "tags: fields".
func (s *simulation) points(name string) []string {
	var lines []string
	for _, p := range s.tracker.Points() {
		if p.Name != "tcp_listen_"+name {
			continue
		}
		var fields []string
		for _, f := range p.Fields {
			fields = append(fields, f.Key+"="+f.Value.String())
		}
		slices.Sort(fields)
		series := strings.TrimPrefix(p.Series(), p.Name)
		lines = append(lines, strings.ReplaceAll(series, `"`, "")+" "+strings.Join(fields, " "))
	}
	return lines
}

func (s *simulation) want(what string, got []string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const web = `
[[expect]]
name = "web"
port = [80, 443]
process = "nginx"
labels = { team = "edge" }
`

const telnet = `
[[forbid]]
name = "telnet"
port = 23
`

func TestExpectedPortHasAPointAlways(t *testing.T) {
	s := simulate(t, web)
	s.scan()
	s.want("nothing listens", s.points("expect"), "{name=web,rule=expect,team=edge} matches=0 undecided=0 up=0")
	s.scan(nginx(80))
	s.want("each element must hold", s.points("expect"), "{name=web,rule=expect,team=edge} matches=1 undecided=0 up=0")
	s.scan(nginx(80), nginx(443))
	s.want("both listen", s.points("expect"), "{name=web,rule=expect,team=edge} matches=2 undecided=0 up=1")
	s.scan(nginx(80), nginx(443, by("httpd")))
	s.want("another program", s.points("expect"), "{name=web,rule=expect,team=edge} matches=1 undecided=0 up=0")
}

func TestEachElementNeedsItsEndpoints(t *testing.T) {
	s := simulate(t, "[[expect]]\nname = 'x'\nport = [80, '90-99']\nmin = 2")
	s.scan(nginx(80), nginx(80), nginx(91), nginx(92))
	s.want("two sockets of one endpoint", s.points("expect"), "{name=x,rule=expect} matches=3 undecided=0 up=0")
	s.scan(nginx(80), nginx(80, at("::")), nginx(91), nginx(92))
	s.want("two endpoints", s.points("expect"), "{name=x,rule=expect} matches=4 undecided=0 up=1")
}

func TestUndecidedRuleKeepsItsEarlierVerdict(t *testing.T) {
	s := simulate(t, web)
	s.scan(nginx(80), nginx(443, pending))
	s.want("without an earlier one", s.points("expect"), "{name=web,rule=expect,team=edge} matches=1 undecided=1")
	s.scan(nginx(80), nginx(443))
	s.scan(nginx(80, pending), nginx(443, unreadable))
	s.want("it was up", s.points("expect"), "{name=web,rule=expect,team=edge} matches=0 undecided=2 up=1")
	s.restart()
	s.scan(nginx(80, pending), nginx(443, unreadable))
	s.want("it was up before a restart", s.points("expect"), "{name=web,rule=expect,team=edge} matches=0 undecided=2 up=1")
	s.scan(nginx(80))
	s.scan(nginx(80), nginx(443, pending))
	s.want("it was not up", s.points("expect"), "{name=web,rule=expect,team=edge} matches=1 undecided=1 up=0")
	s.want("events", s.events)
}

func TestForbidRuleIsUpWhileNothingMatches(t *testing.T) {
	s := simulate(t, telnet)
	s.scan()
	s.want("nothing", s.points("expect"), "{name=telnet,rule=forbid} matches=0 undecided=0 up=1")
	s.scan(nginx(23))
	s.want("a match", s.points("expect"), "{name=telnet,rule=forbid} matches=1 undecided=0 up=0")
	s.want("violation", s.points("violation"),
		"{address=0.0.0.0,exposure=public,port=23,process=nginx,rule=telnet,unit=nginx.service,user=root,verdict=forbidden} active=1")
	s.scan()
	s.want("the violation has ended", s.points("violation"))
}

func TestFailureIsReportedAfterItsTime(t *testing.T) {
	s := simulate(t, web)
	s.scan(nginx(80), nginx(443))
	s.pass(10 * time.Second)
	failed := s.clock
	s.want("at first", s.scan(nginx(80), nginx(443, at("127.0.0.1"), by("httpd"))))
	s.pass(59 * time.Second)
	if s.tracker.Unchanged(Moment{s.clock, s.mono, s.boot}) {
		t.Error("due before a minute has passed")
	}
	s.pass(time.Second)
	if !s.tracker.Unchanged(Moment{s.clock, s.mono, s.boot}) {
		t.Error("not due after a minute")
	}
	s.want("after a minute", s.scan(nginx(80), nginx(443, at("127.0.0.1"), by("httpd"))), "failed web")
	want := metric.Point{
		Name: "tcp_listen_rule_event", Tags: metric.NewTags("event", "failed", "name", "web", "rule", "expect"),
		Fields: []metric.Field{
			{Key: "why", Value: metric.String("port 443: 0 of 1 endpoints; nearest 127.0.0.1:443 of httpd: process httpd is not nginx")},
			{Key: "matches", Value: metric.Int(1)},
			{Key: "undecided", Value: metric.Int(0)},
			{Key: "while_down", Value: metric.Bool(false)},
			{Key: "window_seconds", Value: metric.Float(10)},
		},
		Time: failed,
	}
	if diff := cmp.Diff([]metric.Point{want}, s.last, cmp.AllowUnexported(metric.Value{})); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	s.pass(time.Hour)
	s.want("later", s.scan(nginx(80)))
	s.want("restored", s.scan(nginx(80), nginx(443)), "restored web")
	if v, _ := s.last[0].Field("lasted_seconds"); v.AsFloat() != 3660 || !s.last[0].Time.Equal(s.clock) {
		t.Errorf("restored at %v after %v s", s.last[0].Time, v)
	}
}

func TestRestartWithinTheTimeOfARuleIsSilent(t *testing.T) {
	s := simulate(t, web)
	for range 10 {
		s.scan(nginx(80), nginx(443))
		s.pass(30 * time.Second)
		s.scan()
		s.pass(30 * time.Second)
		s.scan(nginx(80, pending), nginx(443, pending))
		s.pass(10 * time.Second)
	}
	s.want("events", s.events)
}

func TestTimeOfARuleIsThatOfTheMonotonicClock(t *testing.T) {
	s := simulate(t, web)
	s.scan()
	s.clock = s.clock.Add(24 * time.Hour) // the clock is set forward, or the host is suspended
	s.want("the clock has jumped", s.scan())
	s.clock = s.clock.Add(-48 * time.Hour)
	s.pass(time.Minute)
	s.want("a minute has passed", s.scan(), "failed web")
}

func TestFailureGoesOnThroughRestarts(t *testing.T) {
	s := simulate(t, web)
	s.scan()
	s.pass(30 * time.Second)
	s.restart()
	s.want("not yet", s.scan())
	s.pass(30 * time.Second)
	s.restart()
	s.want("a minute after the first scan", s.scan(), "failed web")
	if v, _ := s.last[0].Field("while_down"); v.AsBool() {
		t.Error("the failure began while the program ran")
	}
	s.restart()
	s.want("not twice", s.scan())
	s.restart()
	s.want("restored while down", s.scan(nginx(80), nginx(443)), "restored web")
	if v, _ := s.last[0].Field("while_down"); !v.AsBool() {
		t.Error("that it was while the program was down is not said")
	}
}

func TestBootIsSilentUntilServicesHaveHadTheirTime(t *testing.T) {
	s := simulate(t, web+telnet)
	s.scan(nginx(80), nginx(443), nginx(23))
	s.want("before", s.events, "violated telnet 0.0.0.0 23 nginx")
	s.reboot(20 * time.Second)
	s.scan()
	s.pass(90 * time.Second)
	s.scan(nginx(80), nginx(443), nginx(23))
	s.pass(time.Hour)
	s.scan(nginx(80), nginx(443), nginx(23))
	s.want("after a boot that takes 110 s", s.events, "violated telnet 0.0.0.0 23 nginx")

	s.reboot(20 * time.Second)
	s.scan()
	s.pass(279 * time.Second)
	s.want("almost five minutes after a boot", s.scan())
	s.pass(time.Second)
	s.want("five minutes after a boot", s.scan(), "failed web", "cleared telnet 0.0.0.0 23 nginx")
}

func TestFailureThatABootInterruptsIsReportedAfterIt(t *testing.T) {
	s := simulate(t, web)
	s.scan()
	began := s.clock
	s.reboot(20 * time.Second)
	s.want("after the boot", s.scan())
	s.pass(280 * time.Second)
	s.want("five minutes after it", s.scan(), "failed web")
	if !s.last[0].Time.Equal(began) {
		t.Errorf("time %v, want %v", s.last[0].Time, began)
	}
}

func TestOneSocketOfAnEndpointThatMatchesIsEnough(t *testing.T) {
	s := simulate(t, "[[expect]]\nname = 'x'\nport = 80\nprocess = 'nginx'")
	for _, listeners := range [][]*Listener{{nginx(80), nginx(80, unreadable)}, {nginx(80, unreadable), nginx(80)}} {
		s.scan(listeners...)
		s.want("points", s.points("expect"), "{name=x,rule=expect} matches=1 undecided=0 up=1")
	}
}

func TestViolationLastsWhileItIsUndecided(t *testing.T) {
	s := simulate(t, "[[forbid]]\nname = 'nc'\nprocess = 'nc'\nexe = '/usr/bin/nc'")
	s.scan(nginx(23, by("nc")))
	for range 3 {
		s.pass(time.Hour)
		s.scan(nginx(23, held(Holder{Process: "nc", Unit: "nc.service"}))) // its executable is unreadable
	}
	s.want("events", s.events, "violated nc 0.0.0.0 23 nc")
	s.scan()
	s.pass(time.Minute)
	s.want("gone", s.scan(), "cleared nc 0.0.0.0 23 nc")
}

func TestViolationLastsWhileItsOwnerIsUnreadable(t *testing.T) {
	s := simulate(t, "[[allow]]\nprocess = 'nginx'\n[[forbid]]\nname = 'nc'\nprocess = 'nc'")
	s.scan(nginx(23, by("nc")), nginx(24, by("vi")))
	points := s.points("violation")
	for range 3 {
		s.pass(time.Hour)
		s.scan(nginx(23, unreadable), nginx(24, unreadable))
		s.restart()
	}
	s.scan(nginx(23, unreadable), nginx(24, unreadable))
	s.want("points", s.points("violation"), points...)
	s.want("readable again", s.scan(nginx(23, by("nc")), nginx(24)))
	s.want("events", s.events, "violated nc 0.0.0.0 23 nc", "violated 0.0.0.0 24 vi")
	s.pass(time.Minute)
	s.want("another program", s.scan(nginx(23, by("nc")), nginx(24)), "cleared 0.0.0.0 24 vi")
}

func TestViolationOfARemovedRuleEndsAlsoWhileItsOwnerIsUnreadable(t *testing.T) {
	s := simulate(t, "[[forbid]]\nname = 'nc'\nprocess = 'nc'")
	s.scan(nginx(23, by("nc")))
	s.reload("[[forbid]]\nname = 'vi'\nprocess = 'vi'")
	s.want("events", s.scan(nginx(23, unreadable)), "cleared nc 0.0.0.0 23 nc")
	if why, _ := s.last[0].Field("why"); why.AsString() != "the listener no longer violates any rule" {
		t.Errorf("why: %v", why)
	}
}

func TestReloadKeepsTheStateOfRulesThatStay(t *testing.T) {
	s := simulate(t, web+telnet)
	s.scan(nginx(23))
	s.pass(time.Minute)
	s.scan(nginx(23))
	s.want("before", s.events, "violated telnet 0.0.0.0 23 nginx", "failed web")
	s.reload(web + telnet + "[[allow]]\nport = 22")
	s.want("with another rule", s.scan(nginx(23)))
	s.want("restored", s.scan(nginx(23), nginx(80), nginx(443)), "restored web")
}

func TestRulesThatWereRemovedLeaveNothingBehind(t *testing.T) {
	s := simulate(t, web+telnet)
	s.scan(nginx(23))
	s.pass(time.Minute)
	s.scan(nginx(23))
	s.reload("[[allow]]\nport = 23")
	s.want("events", s.scan(nginx(23)), "cleared telnet 0.0.0.0 23 nginx")
	if why, _ := s.last[0].Field("why"); why.AsString() != "the rules allow the listener" {
		t.Errorf("why: %v", why)
	}
	if len(s.records) > 0 {
		t.Errorf("records are left: %s", slices.Sorted(maps.Keys(s.records)))
	}
}

func TestRuleThatIsRemovedAfterOneScanClearsItsViolations(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23))
	s.reload("")
	s.want("events", s.scan(nginx(23)), "cleared telnet 0.0.0.0 23 nginx")
	if why, _ := s.last[0].Field("why"); why.AsString() != "the listener no longer violates any rule" {
		t.Errorf("why: %v", why)
	}
}

func TestRulesThatWereRemovedWhileDownLeaveNothingBehind(t *testing.T) {
	s := simulate(t, web+telnet)
	s.scan(nginx(23))
	s.rules = compile(t, "")
	s.restart()
	if s.tracker.Idle() {
		t.Error("idle although a violation is remembered")
	}
	s.want("events", s.scan(nginx(23)), "cleared telnet 0.0.0.0 23 nginx")
	if len(s.records) > 0 || !s.tracker.Idle() {
		t.Errorf("records are left: %s", slices.Sorted(maps.Keys(s.records)))
	}
}

func TestViolationHasWhatAnIncidentNeeds(t *testing.T) {
	s := simulate(t, telnet)
	l := nginx(23)
	l.Facts = func() []metric.Field { return []metric.Field{{Key: "pid", Value: metric.Int(7)}} }
	began := s.clock
	s.scan(l)
	want := metric.Point{
		Name: "tcp_listen_rule_event",
		Tags: metric.NewTags("event", "violated", "name", "telnet", "rule", "forbid", "address", "0.0.0.0", "port", "23",
			"family", "ipv4", "exposure", "public", "user", "root", "unit", "nginx.service", "process", "nginx", "owner", "resolved"),
		Fields: []metric.Field{
			{Key: "pid", Value: metric.Int(7)},
			{Key: "why", Value: metric.String("matches forbid rule telnet")},
			{Key: "verdict", Value: metric.String("forbidden")},
			{Key: "while_down", Value: metric.Bool(false)},
			{Key: "window_seconds", Value: metric.Float(10)},
		},
		Time: began,
	}
	if diff := cmp.Diff([]metric.Point{want}, s.last, cmp.AllowUnexported(metric.Value{})); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	s.pass(time.Minute)
	gone := s.clock
	s.scan()
	s.pass(time.Minute)
	s.want("cleared", s.scan(), "cleared telnet 0.0.0.0 23 nginx")
	if v, _ := s.last[0].Field("lasted_seconds"); v.AsFloat() != 60 || !s.last[0].Time.Equal(gone) {
		t.Errorf("cleared at %v after %v s, want %v after 60 s", s.last[0].Time, v, gone)
	}
}

func TestRestartOfAViolatorIsOneViolation(t *testing.T) {
	s := simulate(t, telnet)
	for range 5 {
		s.scan(nginx(23))
		s.pass(30 * time.Second)
		s.scan()
		s.pass(30 * time.Second)
		s.scan(nginx(23, pending))
		s.pass(time.Second)
	}
	s.want("events", s.events, "violated telnet 0.0.0.0 23 nginx")
}

func TestForbidRuleWaitsItsTime(t *testing.T) {
	s := simulate(t, "[[forbid]]\nname = 'x'\nport = 23\nfor = '1m'")
	s.scan(nginx(23))
	s.pass(59 * time.Second)
	s.want("59 s", s.scan(nginx(23)))
	s.scan()
	s.pass(time.Minute)
	s.want("gone in time", s.scan())
	s.scan(nginx(23))
	s.pass(time.Minute)
	s.want("a minute", s.scan(nginx(23)), "violated x 0.0.0.0 23 nginx")
}

func TestViolationWaitsForTheSearchOfItsOwner(t *testing.T) {
	s := simulate(t, telnet)
	began := s.clock
	s.want("pending", s.scan(nginx(23, pending)))
	s.want("its point does not wait", s.points("violation"),
		"{address=0.0.0.0,exposure=public,port=23,rule=telnet,unit=nginx.service,user=root,verdict=forbidden} active=1")
	s.pass(10 * time.Second)
	s.want("found", s.scan(nginx(23)), "violated telnet 0.0.0.0 23 nginx")
	if !s.last[0].Time.Equal(began) {
		t.Errorf("time %v, want that of the first scan, %v", s.last[0].Time, began)
	}
	if len(s.records) != 2 {
		t.Errorf("records: %s", slices.Sorted(maps.Keys(s.records)))
	}
}

func TestViolationWaitsForItsOwnerNoLongerThanOwnerWait(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23, pending))
	s.pass(29 * time.Second)
	s.want("29 s", s.scan(nginx(23, pending)))
	s.pass(time.Second)
	s.want("30 s", s.scan(nginx(23, pending)), "violated telnet 0.0.0.0 23")
	s.want("the owner is no news", s.scan(nginx(23)))
}

func TestShortViolationIsReportedWithoutItsOwner(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23, pending))
	s.pass(3 * time.Second)
	s.want("gone after 3 s", s.scan(), "violated telnet 0.0.0.0 23")
}

func TestOwnerThatBecomesReadableIsNotANewViolation(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23, unreadable))
	s.pass(time.Minute)
	s.scan(nginx(23))
	s.pass(time.Minute)
	s.scan(nginx(23, unreadable))
	s.restart()
	s.scan(nginx(23))
	s.pass(time.Hour)
	s.scan(nginx(23))
	s.want("events", s.events, "violated telnet 0.0.0.0 23")
}

func TestAnotherOwnerIsAnotherViolation(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23))
	s.want("another program", s.scan(nginx(23, by("nc"))), "violated telnet 0.0.0.0 23 nc")
	s.pass(time.Minute)
	s.want("the first has gone", s.scan(nginx(23, by("nc"))), "cleared telnet 0.0.0.0 23 nginx")
}

func TestAnotherOwnerAfterASearchIsAnotherViolation(t *testing.T) {
	s := simulate(t, telnet)
	s.scan(nginx(23))
	s.pass(10 * time.Second)
	s.want("pending", s.scan(nginx(23, pending)))
	s.restart()
	s.pass(time.Second)
	s.want("another program", s.scan(nginx(23, by("nc"))), "violated telnet 0.0.0.0 23 nc")
	s.pass(time.Minute)
	s.want("the first has gone", s.scan(nginx(23, by("nc"))), "cleared telnet 0.0.0.0 23 nginx")
}

func TestNetworkOfALaptopIsNotANewViolation(t *testing.T) {
	s := simulate(t, telnet)
	for _, class := range []inet.Class{inet.Private, inet.Nowhere, inet.Public, inet.Private} {
		s.scan(nginx(23, func(l *Listener) { l.Exposure = class }))
		s.pass(time.Hour)
	}
	s.want("events", s.events, "violated telnet 0.0.0.0 23 nginx")
	s.want("its point has the exposure of now", s.points("violation"),
		"{address=0.0.0.0,exposure=private,port=23,process=nginx,rule=telnet,unit=nginx.service,user=root,verdict=forbidden} active=1")
}

func TestUnexpectedListenersAreCountedByExposure(t *testing.T) {
	s := simulate(t, "[[allow]]\nport = 22")
	s.scan(nginx(22), nginx(80), nginx(80), nginx(81), nginx(82, at("127.0.0.1")))
	s.want("one point for each exposure", s.points("unexpected"),
		"{exposure=none} listeners=0", "{exposure=loopback} listeners=1", "{exposure=link_local} listeners=0",
		"{exposure=private} listeners=0", "{exposure=public} listeners=2")
	s.want("events", s.events, "violated 0.0.0.0 80 nginx", "violated 0.0.0.0 81 nginx", "violated 127.0.0.1 82 nginx")
	if v, _ := s.last[0].Field("why"); v.AsString() != "no rule comes close: none names this port, process, program, unit or container" {
		t.Errorf("why: %v", v)
	}
}

func TestUnexpectedListenersHaveNoPointsIfTheyAreIgnored(t *testing.T) {
	s := simulate(t, "unlisted = 'ignore'\n[[allow]]\nport = 22")
	s.scan(nginx(80))
	s.want("unexpected", s.points("unexpected"))
	s.want("violation", s.points("violation"))
	s.want("events", s.events)
}

func TestRulesAreNamedByTheirDigest(t *testing.T) {
	s := simulate(t, web+telnet+"[[allow]]\nport = 22")
	s.scan()
	s.want("rules", s.points("rules"), fmt.Sprintf("{digest=%s} allow=1 expect=1 forbid=1 loaded_time_seconds=%d", s.rules.Digest(), now.Unix()))
}

func TestTheFirstApprovalThatEndsIsAMetric(t *testing.T) {
	s := simulate(t, "[[allow]]\nport = 22\nexpires = '2027-03-31'\n[[allow]]\nport = 23\n[[forbid]]\nname = 'x'\nport = 24\nexpires = '2027-01-31'")
	s.scan()
	s.want("rules", s.points("rules"), fmt.Sprintf("{digest=%s} allow=2 expect=0 expires_time_seconds=%d forbid=1 loaded_time_seconds=%d",
		s.rules.Digest(), time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC).Unix(), now.Unix()))
}

func TestWithoutRulesThereAreNoPoints(t *testing.T) {
	s := simulate(t, "")
	s.scan(nginx(80))
	if points := s.tracker.Points(); len(points) > 0 || !s.tracker.Idle() || s.rules.Active() {
		t.Errorf("points %v, idle %v, active %v", points, s.tracker.Idle(), s.rules.Active())
	}
	s = simulate(t, "expect_file = ['/etc/sockwatch/expect.d/*.toml']")
	s.scan(nginx(80))
	s.want("files without rules", s.points("rules"), fmt.Sprintf("{digest=%s} allow=0 expect=0 forbid=0 loaded_time_seconds=%d", s.rules.Digest(), now.Unix()))
}

func TestUnchangedPointsAreTheSameSlice(t *testing.T) {
	s := simulate(t, web)
	s.scan(nginx(80))
	before := s.tracker.Points()
	s.scan(nginx(80), nginx(22))
	if after := s.tracker.Points(); &before[0] != &after[0] {
		t.Error("the points were made again")
	}
}

func TestManyViolationsOfAUserAreCollapsed(t *testing.T) {
	s := simulate(t, "unlisted = 'unexpected'")
	s.tracker.options.MaxPerUser = 3
	jane := func(l *Listener) { l.User = "jane" }
	many := func(n int) []*Listener {
		all := []*Listener{nginx(1)}
		for i := range n {
			all = append(all, nginx(uint16(10+i), jane))
		}
		return all
	}
	s.want("first", s.scan(many(7)...), "violated 0.0.0.0 1 nginx", "violated 0.0.0.0 10 nginx", "violated 0.0.0.0 11 nginx", "violated 0.0.0.0 12 nginx", "violated")
	for _, e := range s.last {
		if v, ok := e.Field("count"); ok && (v.AsInt() != 4 || e.Tag("user") != "jane") {
			t.Errorf("count %v of %q", v, e.Tag("user"))
		}
	}
	s.want("more", s.scan(many(20)...))
	if n := len(s.points("violation")); n != 5 {
		t.Errorf("%d points, want 5", n)
	}
	s.scan(many(2)...)
	s.pass(time.Minute)
	s.want("fewer", s.scan(many(2)...), "cleared 0.0.0.0 12 nginx", "cleared")
}

func TestDamagedRecordsAreSkipped(t *testing.T) {
	s := simulate(t, web+telnet)
	s.scan(nginx(23))
	good := maps.Clone(s.records)
	s.records["r:expect:gone"] = json.RawMessage(`{}`)
	s.records["r:forbid:telnet"] = json.RawMessage(`[`)
	s.records["r:violation:x"] = good[slices.Sorted(maps.Keys(good))[2]]
	s.records["r:violation:y"] = json.RawMessage(`{"v":"yes"}`)
	s.records["e:other"] = json.RawMessage(`not ours`)
	s.restart()
	s.want("events", s.scan(nginx(23)))
	want := slices.Concat(slices.Sorted(maps.Keys(good)), []string{"e:other"})
	slices.Sort(want)
	s.want("records", slices.Sorted(maps.Keys(s.records)), want...)
}

func TestDurationsHaveThreeDecimals(t *testing.T) {
	for d, want := range map[time.Duration]string{8556*time.Millisecond + 999: "8.556", 1001 * time.Millisecond: "1.001", 0: "0"} {
		if got := seconds("lasted_seconds", d); got.Value.String() != want {
			t.Errorf("%v is %s, want %s", d, got.Value, want)
		}
	}
}
