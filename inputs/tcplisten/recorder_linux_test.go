package tcplisten

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/testchild"
)

// eventTags returns the tags of an event of a root process without a unit that listens on
// 127.0.0.1:4000, in the format of lineProtocol.
func eventTags(event, process string) map[string]string {
	return map[string]string{
		"tag address": "127.0.0.1", "tag event": event, "tag exposure": "loopback", "tag family": "ipv4", "tag owner": "resolved",
		"tag port": "4000", "tag process": process, "tag user": "root",
	}
}

// eventFields adds the fields that describe a process, and the time of the event.
func (o *observer) eventFields(event map[string]string, pid int) map[string]string {
	o.t.Helper()
	exe, self := exeOf(o.t, pid), exeOf(o.t, os.Getpid())
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		o.t.Fatal(err)
	}
	p, err := o.open.procfs.Process(pid)
	if err != nil {
		o.t.Fatal(err)
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		o.t.Fatal(err)
	}
	maps.Copy(event, map[string]string{
		"uid": "0", "pid": strconv.Itoa(pid), "exe": exe, "exe_deleted": "false",
		"process_start_time_seconds": metric.Float(float64(o.open.procfs.StartTime(st.Start).UnixMilli()) / 1000).String(),
		"parent_pid":                 "1", "parent_process": strings.TrimSpace(string(comm)), "parent_exe": self,
		"while_down": "false",
	})
	return event
}

// sameEvent compares everything in an event except history, sequence, and the tags of the
// machine on which the test runs.
func sameEvent(t *testing.T, got metric.Point, want map[string]string) {
	t.Helper()
	all := lineProtocol(got)
	if all["history"] == "" || all["sequence"] == "" {
		t.Errorf("history %q, sequence %q", all["history"], all["sequence"])
	}
	for _, key := range []string{"history", "sequence", "tag unit", "tag user_unit", "tag container", "tag pod"} {
		delete(all, key)
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestLifeOfAListener(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	o.wants(10 * time.Second)

	var login string
	var a *testchild.Child
	file := socket(t, "127.0.0.1", 4000)
	err := testchild.OnSpareThread(func() (err error) {
		if os.WriteFile("/proc/thread-self/loginuid", []byte("1234"), 0) == nil {
			login = "1234"
		}
		a, err = spawn(&task{Name: []byte("web"), Worker: true}, []*os.File{file}, nil, new([]int))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.End)
	file.Close()
	opened := o.now.Time.Add(10 * time.Second)
	e := o.wants(10*time.Second, "opened 127.0.0.1:4000 web")
	want := o.eventFields(eventTags("opened", "web"), a.Process.Pid)
	want["time"], want["window_seconds"] = opened.UTC().String(), "10"
	if login != "" {
		want["login_uid"] = login
	} else {
		t.Log("no login uid could be set")
	}
	sameEvent(t, e[0], want)
	before := o.eventFields(map[string]string{}, a.Process.Pid)

	a.End()
	b := service(t, "web", "127.0.0.1", 4000)
	at := o.now.Time.Add(5 * time.Second)
	e = o.wants(5*time.Second, "restarted 127.0.0.1:4000 web")
	want = o.eventFields(eventTags("restarted", "web"), b.Process.Pid)
	maps.Copy(want, map[string]string{
		"time": at.UTC().String(), "window_seconds": "5", "down_seconds": "5",
		"previous_pid": before["pid"], "previous_exe": before["exe"], "exe_changed": "false",
	})
	sameEvent(t, e[0], want)

	b.End()
	c := service(t, "db", "127.0.0.1", 4000)
	at = o.now.Time.Add(5 * time.Second)
	e = o.wants(5*time.Second, "owner_changed 127.0.0.1:4000 db previous_process=web")
	last := o.eventFields(eventTags("closed", "db"), c.Process.Pid)
	want = o.eventFields(eventTags("owner_changed", "db"), c.Process.Pid)
	maps.Copy(want, map[string]string{
		"time": at.UTC().String(), "window_seconds": "5", "down_seconds": "5", "previous_process": "web", "previous_user": "root",
		"previous_pid": strconv.Itoa(b.Process.Pid), "previous_exe": before["exe"], "exe_changed": "false",
	})
	got := e[0]
	got.Fields = slices.DeleteFunc(slices.Clone(got.Fields), func(f metric.Field) bool {
		return slices.Contains([]string{"previous_unit", "previous_user_unit", "previous_container"}, f.Key) // of this machine
	})
	sameEvent(t, got, want)

	c.End()
	at = o.now.Time.Add(5 * time.Second)
	o.wants(5 * time.Second)
	o.wants(59 * time.Second)
	e = o.wants(time.Second, "closed 127.0.0.1:4000 db")
	maps.Copy(last, map[string]string{"time": at.UTC().String(), "window_seconds": "5", "age_seconds": "15"})
	sameEvent(t, e[0], last)

	service(t, "db", "127.0.0.1", 4000)
	b1 := o.gatherAfter(10 * time.Second)
	if got := o.news(b1); len(got) != 1 || summary(got[0]) != "returned 127.0.0.1:4000 db" {
		t.Errorf("events %v, want returned", got)
	}
	changed, _ := fieldOf(b1, 4000, "changed_time_seconds")
	if want := strconv.FormatInt(o.now.Time.Unix(), 10); changed.String() != want {
		t.Errorf("changed_time_seconds %s, want %s", changed, want)
	}
	totals := make(map[string]string)
	for _, p := range o.gatherAfter(time.Second).Points {
		if p.Name == pointListener+"_events" {
			totals[p.Tag("event")] = fieldText(p, "total")
		}
	}
	if diff := cmp.Diff(map[string]string{
		"opened": "1", "restarted": "1", "owner_changed": "1", "closed": "1", "returned": "1", "exposure_changed": "0",
	}, totals); diff != "" {
		t.Errorf("tcp_listen_events (-want +got):\n%s", diff)
	}
}

func TestSecondProgramJoinsAPort(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	o.wants(10 * time.Second)
	another := service(t, "web", "127.0.0.1", 4000)
	o.wants(10 * time.Second)
	thief := service(t, "thief", "127.0.0.1", 4000)
	e := o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 thief previous_process=web")
	if down := fieldText(e[0], "down_seconds"); down != "0" {
		t.Errorf("down_seconds %s", down)
	}
	another.End()
	o.wants(10 * time.Second)
	thief.End()
	o.wants(10 * time.Second)
	o.wants(time.Minute, "owner_changed 127.0.0.1:4000 web previous_process=thief")
}

func TestHolderLeavesThePortToAChild(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	hand(t, "shell", take(t, web))
	o.wants(10 * time.Second)
	web.End()
	o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 shell previous_process=web")
}

func TestForkedServiceIsTheSameOwner(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	parent := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	hand(t, "web", take(t, parent))
	o.wants(10 * time.Second)
	parent.End()
	o.wants(10 * time.Second)
	o.wants(10 * time.Minute)
}

func TestRenamedProcessIsTheSameOwner(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	file := socket(t, "127.0.0.1", 4000)
	c, err := spawn(&task{Name: []byte("old"), NewName: []byte("new"), Worker: true}, []*os.File{file}, nil, new([]int))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	file.Close()
	o.wants(0)
	c.Process.Signal(syscall.SIGUSR1)
	soon(t, "it has renamed itself", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Process.Pid))
		return string(text) == "new\n"
	})
	o.wants(10 * time.Second)
	o.wants(10 * time.Second)
	c.End()
	service(t, "new", "127.0.0.1", 4000)
	o.wants(10*time.Second, "restarted 127.0.0.1:4000 new")
}

func TestExposureChanges(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	all := service(t, "all", "0.0.0.0", 4001)
	o.wants(0)
	web.End()
	service(t, "web", "0.0.0.0", 4000)
	e := o.wants(10*time.Second, "exposure_changed 0.0.0.0:4000 web previous_address=127.0.0.1 cause=rebound")
	if class := fieldText(e[0], "previous_exposure"); class != "loopback" {
		t.Errorf("previous_exposure %s", class)
	}
	ip(t, "address add 10.1.2.3/32 dev lo")
	o.wants(10 * time.Second) // only to private, which may be temporary
	e = o.wants(time.Minute, "exposure_changed 0.0.0.0:4000 web cause=host_address", "exposure_changed 0.0.0.0:4001 all cause=host_address")
	if class := e[1].Tag("exposure") + " after " + fieldText(e[1], "previous_exposure"); class != "private after loopback" {
		t.Errorf("exposure %s", class)
	}
	ip(t, "address add 192.0.2.1/32 dev lo")
	e = o.wants(10*time.Second, "exposure_changed 0.0.0.0:4000 web cause=host_address", "exposure_changed 0.0.0.0:4001 all cause=host_address")
	if class := e[1].Tag("exposure") + " after " + fieldText(e[1], "previous_exposure"); class != "public after private" {
		t.Errorf("exposure %s", class)
	}
	all.End()
	service(t, "all", "127.0.0.1", 4001)
	o.wants(10*time.Second, "exposure_changed 127.0.0.1:4001 all previous_address=0.0.0.0 cause=rebound")
}

func TestOwnerIsWaitedFor(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	service(t, "web", "127.0.0.1", 4000)
	if events := o.news(o.gatherBriefly(10 * time.Second)); len(events) != 0 {
		t.Fatalf("events before the search for the owner: %v", events)
	}
	first := o.now.Time
	e := o.wants(10*time.Second, "opened 127.0.0.1:4000 web")
	if !e[0].Time.Equal(first) {
		t.Errorf("time %v, want that of the first gather, %v", e[0].Time, first)
	}

	service(t, "db", "127.0.0.1", 4001)
	o.news(o.gatherBriefly(10 * time.Second))
	first = o.now.Time
	events := o.news(o.gatherBriefly(30 * time.Second))
	if len(events) != 1 || summary(events[0]) != "opened 127.0.0.1:4001" || !events[0].Time.Equal(first) {
		t.Errorf("after owner_wait: %v", events)
	}
	o.wants(10 * time.Second) // the first one that is found is the owner
}

func TestChangesWhileDown(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	service(t, "stays", "127.0.0.1", 4000)
	restarts := service(t, "restarts", "127.0.0.1", 4001)
	changes, leaves := service(t, "changes", "127.0.0.1", 4002), service(t, "leaves", "127.0.0.1", 4003)
	o.wants(0)
	o.restart(eventOptions())
	o.wants(10 * time.Second)
	o.wants(10 * time.Second)
	closeInput(t, o.input)

	for _, c := range []*testchild.Child{restarts, changes, leaves} {
		c.End()
	}
	service(t, "restarts", "127.0.0.1", 4001)
	service(t, "another", "127.0.0.1", 4002)
	service(t, "opens", "127.0.0.1", 4004)
	o.start(eventOptions())
	e := o.wants(time.Hour, "restarted 127.0.0.1:4001 restarts while_down",
		"owner_changed 127.0.0.1:4002 another previous_process=changes while_down", "opened 127.0.0.1:4004 opens while_down")
	if window := fieldText(e[2], "window_seconds"); window != "3600" {
		t.Errorf("window_seconds %s, want the time that sockwatch was down", window)
	}
	if parent := fieldText(e[2], "parent_pid"); parent != "1" {
		t.Errorf("parent_pid %q", parent)
	}
	o.wants(59 * time.Second)
	o.wants(time.Second, "closed 127.0.0.1:4003 leaves while_down")
}

func TestUndeliveredEventsAreRepeatedAfterAKill(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	service(t, "web", "127.0.0.1", 4000)
	first := o.gatherAfter(10 * time.Second)
	if len(first.Events) != 1 {
		t.Fatalf("%d events", len(first.Events))
	}
	o.kill(eventOptions())
	again := o.gatherAfter(10 * time.Second)
	if diff := cmp.Diff(lineProtocol(first.Events[0]), lineProtocol(again.Events[0])); diff != "" || len(again.Events) != 1 {
		t.Errorf("%d events after a kill (-first +again):\n%s", len(again.Events), diff)
	}
	again.EventsStored()
	soon(t, "it is noted that the event is delivered", func() bool { return o.recorder.history.Waiting() == 0 })
	o.restart(eventOptions())
	o.wants(10 * time.Second)
}

func TestSettingTheClockIsNotAChange(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	for _, jump := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
		o.now.Time = o.now.Time.Add(jump)
		o.wants(10 * time.Second)
	}
	web.End()
	o.wants(10 * time.Second)
	o.now.Time = o.now.Time.Add(24 * time.Hour)
	o.wants(10 * time.Second) // 10 s, not a day
	o.wants(50*time.Second, "closed 127.0.0.1:4000 web")
}

func TestNamespaceThatCannotBeListedForAWhileIsABaseline(t *testing.T) {
	options := eventOptions()
	options.Namespaces = true
	o := observe(t, options)
	if o == nil {
		return
	}
	ip(t, "netns add other")
	ip(t, "-n other link set lo up")
	mounted, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	startIn(t, mounted, task{Name: []byte("stays"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	o.wants(0)
	o.wants(10 * time.Second)
	startIn(t, mounted, task{Name: []byte("opens"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4001}}})
	o.wants(10*time.Second, "opened other/127.0.0.1:4001 opens")

	o.gatherWithout(2*time.Minute, "other")
	startIn(t, mounted, task{Name: []byte("meanwhile"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4002}}})
	service(t, "here", "127.0.0.1", 4003)
	o.wants(10*time.Second, "opened 127.0.0.1:4003 here")
	startIn(t, mounted, task{Name: []byte("later"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4004}}})
	o.wants(10*time.Second, "opened other/127.0.0.1:4004 later")
}

func TestReloadThatIncludesNamespacesIsABaselineOfThem(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes in several namespaces")
	}
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	ip(t, "netns add other")
	mounted, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	ip(t, "-n other link set lo up")
	startIn(t, mounted, task{Name: []byte("there"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	service(t, "here", "127.0.0.1", 4000)
	o.wants(0)
	with := eventOptions()
	with.Namespaces = true
	o.reload(with)
	service(t, "new", "127.0.0.1", 4001)
	o.wants(10*time.Second, "opened 127.0.0.1:4001 new")
	startIn(t, mounted, task{Name: []byte("new"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4001}}})
	o.wants(10*time.Second, "opened other/127.0.0.1:4001 new")
	ip(t, "netns add another") // new on the host, not in the options: not a baseline
	added, err := os.Open("/run/netns/another")
	if err != nil {
		t.Fatal(err)
	}
	defer added.Close()
	startIn(t, added, task{Name: []byte("container"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	o.wants(10*time.Second, "opened another/127.0.0.1:4000 container")
	o.reload(eventOptions()) // what is no longer included is forgotten
	o.wants(10 * time.Second)
	o.wants(time.Hour)
}

func TestAnotherBackEndIsABaseline(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several processes")
	}
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	procfs := eventOptions()
	procfs.Backend = backendProcfs
	service(t, "db", "127.0.0.1", 4001)
	o.reload(procfs)
	o.wants(10 * time.Second)
	o.wants(time.Hour)
	web.End()
	service(t, "web", "127.0.0.1", 4000)
	o.wants(10*time.Second, "restarted 127.0.0.1:4000 web")
	o.restart(eventOptions())
	o.wants(10 * time.Second)
}

func TestUsualReloadIsNotABaseline(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	web.End()
	o.wants(10 * time.Second)
	shorter := eventOptions()
	shorter.Settle = plugin.Duration(10 * time.Second)
	o.reload(shorter)
	service(t, "db", "127.0.0.1", 4001)
	o.wants(10*time.Second, "closed 127.0.0.1:4000 web", "opened 127.0.0.1:4001 db")
}

// ruledOptions returns options with rules for the ports 4000 to 4002; nothing else is expected.
func ruledOptions() Options {
	port := func(n uint16) expect.Criteria { return expect.Criteria{Port: expect.Ports{{First: n, Last: n}}} }
	web := expect.Expect{Name: "web", Criteria: port(4000), Approval: expect.Approval{Why: "public site"}}
	web.SetDefaults()
	o := eventOptions()
	o.Expect = []expect.Expect{web}
	o.Allow = []expect.Allow{{Name: "db", Criteria: port(4001)}}
	o.Forbid = []expect.Forbid{{Name: "telnet", Criteria: port(4002), Approval: expect.Approval{Why: "clear text"}}}
	return o
}

// named returns the series of the points with a name, each with the value of one field.
func named(points []metric.Point, name, field string) (series []string) {
	for _, p := range points {
		if p.Name == name {
			series = append(series, strings.TrimPrefix(p.Series(), name)+" "+fieldText(p, field))
		}
	}
	return series
}

// TestListenersWithoutARuleHaveNoReason: with unlisted = "ignore", most events would
// otherwise say at length that the rules say nothing.
func TestListenersWithoutARuleHaveNoReason(t *testing.T) {
	options := ruledOptions()
	options.Unlisted = expect.UnlistedIgnore
	options.Expect[0].Process = plugin.Strings{"nginx"}
	o := observe(t, options)
	if o == nil {
		return
	}
	o.wants(0)
	service(t, "httpd", "127.0.0.1", 4000)
	service(t, "unknown", "127.0.0.1", 4003)
	got := map[string]string{}
	for _, e := range o.news(o.gatherAfter(10 * time.Second)) {
		got[summary(e)] = fieldText(e, "why")
	}
	want := map[string]string{
		"opened 127.0.0.1:4000 httpd":   "process httpd is not nginx of rule web",
		"opened 127.0.0.1:4003 unknown": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons of events (-want +got):\n%s", diff)
	}
}

func TestRulesJudgeEventsAndPoints(t *testing.T) {
	o := observe(t, ruledOptions())
	if o == nil {
		return
	}
	o.wants(0)
	for i, name := range []string{"web", "db", "telnetd", "unknown"} {
		service(t, name, "127.0.0.1", 4000+i)
	}
	b := o.gatherAfter(10 * time.Second)
	type judged struct{ Event, Rule, Why, PointExpected, PointRule string }
	var got []judged
	for _, e := range o.news(b) {
		p := one(t, b, number(t, e.Tag("port")))
		got = append(got, judged{summary(e), fieldText(e, "rule"), fieldText(e, "why"), fieldText(p, "expected"), fieldText(p, "rule")})
	}
	want := []judged{
		{Event: "opened 127.0.0.1:4000 web expected=yes", Rule: "web", Why: "matches rule web: public site", PointExpected: "yes", PointRule: "web"},
		{Event: "opened 127.0.0.1:4001 db expected=yes", Rule: "db", Why: "matches rule db", PointExpected: "yes", PointRule: "db"},
		{Event: "opened 127.0.0.1:4002 telnetd expected=forbidden", Rule: "telnet", Why: "matches forbid rule telnet: clear text", PointExpected: "forbidden", PointRule: "telnet"},
		{Event: "opened 127.0.0.1:4003 unknown expected=no", Why: "no rule comes close: none names this port, process, program, unit or container", PointExpected: "no"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events and points (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name, field string
		want        []string
	}{
		{name: "expect", field: "up", want: []string{`{name="telnet",rule="forbid"} 0`, `{name="web",rule="expect"} 1`}},
		{name: "violation", field: "active", want: []string{
			`{address="127.0.0.1",exposure="loopback",port="4002",process="telnetd",rule="telnet",user="root",verdict="forbidden"} 1`,
			`{address="127.0.0.1",exposure="loopback",port="4003",process="unknown",user="root",verdict="no"} 1`,
		}},
		{name: "unexpected", field: "listeners", want: []string{
			`{exposure="none"} 0`, `{exposure="loopback"} 1`, `{exposure="link_local"} 0`, `{exposure="private"} 0`, `{exposure="public"} 0`,
		}},
	} {
		if diff := cmp.Diff(tt.want, named(b.Points, pointListener+"_"+tt.name, tt.field)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	var violated []string
	for _, e := range b.Events {
		if e.Name == pointListener+"_rule_event" {
			violated = append(violated, e.Tag("event")+" "+e.Tag("name")+" "+e.Tag("process")+" "+fieldText(e, "verdict"))
		}
	}
	if diff := cmp.Diff([]string{"violated telnet telnetd forbidden", "violated  unknown no"}, violated); diff != "" {
		t.Errorf("rule events (-want +got):\n%s", diff)
	}

	without := eventOptions()
	o.reload(without)
	b = o.gatherAfter(10 * time.Second)
	if p := one(t, b, 4000); fieldText(p, "expected") != "" || len(named(b.Points, pointListener+"_expect", "up")) > 0 {
		t.Errorf("after a reload without rules: %v", p.Fields)
	}
	if events := o.news(b); len(events) != 0 {
		t.Errorf("a reload of the rules alone is reported: %v", events)
	}
}

func TestViolatorsAreDroppedLast(t *testing.T) {
	options := ruledOptions()
	options.MaxListeners = 100
	options.Allow[0].Port = expect.Ports{{First: 5000, Last: 5999}}
	o := observe(t, options)
	if o == nil {
		return
	}
	start(t, task{Name: []byte("many"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 5000, Count: 100}}})
	o.wants(0)
	service(t, "telnetd", "127.0.0.1", 4002)
	service(t, "unknown", "127.0.0.1", 6000)
	start(t, task{Name: []byte("many"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 5100, Count: 100}}})
	b := o.gatherAfter(10 * time.Second)
	for _, port := range []int{4002, 6000} {
		one(t, b, port)
	}
	kept, overflow := len(named(b.Points, pointListener, "pid")), 1
	if others := len(b.Points) - kept - overflow; len(b.Points) != 100 || others < 30 {
		t.Errorf("%d listeners and %d others have a point", kept, others)
	}
	if events := o.news(b); len(events) != 102 {
		t.Errorf("%d events, want one of each listener that opened: folding comes after the changes", len(events))
	}
}

// TestFullDiskHidesNoChange publishes events that cannot be written, and continues as before
// when there is space again.
func TestFullDiskHidesNoChange(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	if err := unix.Mount("tmpfs", o.env.StateDir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(o.env.StateDir, unix.MNT_DETACH) })
	service(t, "stays", "127.0.0.1", 3999)
	o.wants(0)
	soon(t, "the history is written", func() bool { return o.written() })
	fill := filepath.Join(o.env.StateDir, "fill")
	if err := os.WriteFile(fill, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for i := range 5 {
		name := strings.Repeat(string(rune('a'+i)), 10)
		service(t, name, "127.0.0.1", 4000+i)
		o.wants(10*time.Second, fmt.Sprintf("opened 127.0.0.1:%d %s", 4000+i, name))
	}
	if n := strings.Count(o.log.String(), "level=WARN"); n != 1 || !strings.Contains(o.log.String(), "cannot write the history") {
		t.Errorf("%d warnings: %s", n, o.log)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	service(t, "again", "127.0.0.1", 5000)
	o.wants(10*time.Second, "opened 127.0.0.1:5000 again")
	soon(t, "writing the history resumed", func() bool { return o.written() })
	o.kill(eventOptions())
	o.wants(10 * time.Second)
	if o.log.Len() > 0 {
		t.Errorf("after a kill: %s", o.log)
	}
	history := make(map[string]bool)
	for id := range o.seen {
		history[strings.Fields(id)[0]] = true
	}
	if len(history) < 2 {
		t.Errorf("events that could not be written have the same history as those that were: %v", history)
	}
}

func TestRecreatedContainerIsARestart(t *testing.T) {
	options := eventOptions()
	options.Namespaces = true
	o := observe(t, options)
	if o == nil {
		return
	}
	container := func() *exec.Cmd {
		cmd, _ := startWith(t, task{Name: []byte("app"), Listen: []listenTask{{Addr: "0.0.0.0", Port: 8080}}},
			&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true})
		return cmd
	}
	o.wants(0)
	events := func(after time.Duration) (all []string) {
		t.Helper()
		for _, e := range o.news(o.gatherAfter(after)) {
			all = append(all, e.Tag("event")+" "+e.Tag("port")+" "+e.Tag("process"))
		}
		return all
	}
	first := container()
	if diff := cmp.Diff([]string{"opened 8080 app"}, events(10*time.Second)); diff != "" {
		t.Fatal(diff)
	}
	end(first)
	container()
	if diff := cmp.Diff([]string{"restarted 8080 app"}, events(10*time.Second)); diff != "" {
		t.Fatal(diff)
	}
	container() // a second one at the same time
	if diff := cmp.Diff([]string{"opened 8080 app"}, events(10*time.Second)); diff != "" {
		t.Fatal(diff)
	}
	if got := events(10 * time.Minute); got != nil {
		t.Errorf("later: %v", got)
	}
}

// identities returns the history and sequence of events.
func identities(events []metric.Point) (all []string) {
	for _, e := range events {
		all = append(all, fieldText(e, "history")+" "+fieldText(e, "sequence"))
	}
	return all
}

func TestEventsFromBeforeAKillAreRecalledOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 2,000 events")
	}
	options := eventOptions()
	options.Settle = 0
	o := observe(t, options)
	if o == nil {
		return
	}
	o.wants(0)
	if got := o.RecallEvents(); len(got) > 0 {
		t.Errorf("%d events recalled without a history", len(got))
	}
	var want []string
	run := func(events int, delivered bool) {
		t.Helper()
		o.keep = !delivered
		b := o.gatherAfter(10 * time.Second)
		if len(b.Events) != events {
			t.Fatalf("%d events, want %d", len(b.Events), events)
		}
		o.news(b)
		want = append(want, identities(b.Events)...)
	}
	for cycle := range 3 { // more events than the history keeps
		cmd, _ := start(t, task{Listen: []listenTask{{Addr: "127.0.0.7", Port: 20000, Count: 500}}})
		run(500, true)
		end(cmd)
		run(500, cycle < 2)
	}
	want = want[len(want)-2000:]
	soon(t, "the deliveries are written", func() bool { return o.recorder.history.Waiting() == 500 })
	o.kill(options)
	if got := o.RecallEvents(); len(got) > 0 {
		t.Errorf("%d events recalled before a gather has read the history", len(got))
	}
	again := o.gatherAfter(10 * time.Second)
	recalled := o.RecallEvents()
	if len(recalled) != 2000 || len(again.Events) != 500 {
		t.Errorf("%d events recalled and %d published again, want 2000 and 500", len(recalled), len(again.Events))
	}
	all := identities(append(recalled, again.Events...))
	if diff := cmp.Diff(want, all[500:]); diff != "" { // a page keeps the last 2,000
		t.Errorf("events (-before the kill +after):\n%s", diff)
	}
	for _, e := range recalled {
		id := identities([]metric.Point{e})[0]
		if diff := cmp.Diff(lineProtocol(o.seen[id]), lineProtocol(e)); diff != "" {
			t.Fatalf("event %s (-published +recalled):\n%s", id, diff)
		}
	}
	if got := o.RecallEvents(); len(got) > 0 {
		t.Errorf("%d events recalled a second time", len(got))
	}
}

// TestClocksAreReadTogether reads the clocks again if the program was interrupted between them, so
// that the kernel's times are not converted with an error.
func TestClocksAreReadTogether(t *testing.T) {
	wall, uptime := time.Unix(1_800_000_000, 0), time.Hour
	pauses := []time.Duration{60 * time.Millisecond, 0, time.Millisecond} // after the reads of the wall clock
	pass := func(d time.Duration) { wall, uptime = wall.Add(d), uptime+d }
	m := readTogether(
		func(int32) time.Duration { pass(time.Microsecond); return uptime },
		func() time.Time {
			read := wall
			pass(pauses[0])
			pauses = pauses[1:]
			return read
		})
	if diff := wall.Add(-uptime).Sub(m.Time.Add(-m.Uptime)); diff.Abs() > 10*time.Microsecond || len(pauses) != 1 {
		t.Errorf("the clocks are %v apart after %d reads, want less than 10us after 2", diff, 3-len(pauses))
	}
}

// TestClocksOfABusyHostAreTheBestOfTen gives up after ten reads, and takes the shortest.
func TestClocksOfABusyHostAreTheBestOfTen(t *testing.T) {
	uptime, reads := time.Hour, 0
	m := readTogether(
		func(int32) time.Duration { return uptime },
		func() time.Time {
			reads++
			pause := time.Second
			if reads == 4 {
				pause = time.Millisecond
			}
			uptime += pause
			return time.Unix(int64(reads), 0)
		})
	if reads != 10 || !m.Time.Equal(time.Unix(4, 0)) {
		t.Errorf("%v after %d reads, want the fourth of 10", m.Time, reads)
	}
}
