package tcplisten

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
)

func TestCausesSayWhatToDo(t *testing.T) {
	hidden := owner.Report{Hidden: "processes outside one pid namespace are not visible"}
	refused := owner.Report{Refused: 3}
	tests := []struct {
		name       string
		visibility procfs.Visibility
		report     owner.Report
		want       []string // a part of each cause
	}{
		{name: "one process refuses even root", visibility: procfs.Visibility{Capabilities: capabilities}, report: refused},
		{name: "no capabilities", report: refused, want: []string{"setcap cap_sys_ptrace,cap_dac_read_search+ep"}},
		{name: "one of the two", visibility: procfs.Visibility{Capabilities: 1 << unix.CAP_SYS_PTRACE}, report: refused, want: []string{"are both needed"}},
		{name: "a container", visibility: procfs.Visibility{PIDNS: true, Capabilities: capabilities}, report: hidden, want: []string{"--pid=host"}},
		{name: "a container without capabilities", visibility: procfs.Visibility{PIDNS: true}, report: hidden,
			want: []string{"--pid=host", "--cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH"}},
		{name: "a container with docker's profile and without capabilities", visibility: procfs.Visibility{AppArmor: "docker-default"}, report: refused,
			want: []string{"--cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH", `the AppArmor profile "docker-default" may deny it even with both`}},
		{name: "root of a user namespace", visibility: procfs.Visibility{UserNS: true}, report: refused, want: []string{"in a user namespace"}},
		{name: "hidepid", visibility: procfs.Visibility{HidePID: true}, report: owner.Report{Hidden: "processes of other users are not visible (hidepid)"},
			want: []string{"setcap cap_sys_ptrace,cap_dac_read_search+ep"}},
		{name: "hidepid in spite of the capabilities", visibility: procfs.Visibility{HidePID: true, Capabilities: capabilities},
			report: owner.Report{Hidden: "processes of other users are not visible (hidepid)"}, want: []string{"mounted with hidepid"}},
		{name: "docker's profile", visibility: procfs.Visibility{Capabilities: capabilities, AppArmor: "docker-default"}, report: refused,
			want: []string{`the AppArmor profile "docker-default" denies`}},
		{name: "a profile that denies nothing", visibility: procfs.Visibility{Capabilities: capabilities, AppArmor: "sockwatch"}, report: owner.Report{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := causesOf(tt.visibility, tt.report)
			if len(got) != len(tt.want) {
				t.Fatalf("%d causes, want %d: %q", len(got), len(tt.want), got)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("%q is not in %q", want, got[i])
				}
			}
		})
	}
}

func TestExpiringRulesAreLoggedOnceADay(t *testing.T) {
	options := Defaults()
	allow := expect.Criteria{Process: plugin.Strings{"none"}}
	options.Allow = []expect.Allow{
		{Name: "soon", Criteria: allow, Approval: expect.Approval{Expires: "2030-01-10"}},
		{Name: "later", Criteria: allow, Approval: expect.Approval{Expires: "2031-01-10"}},
	}
	in, log := openLogging(t, options, plugin.Env{Name: pointListener})
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	lines := func(after time.Duration) string {
		t.Helper()
		log.Reset()
		now = now.Add(after)
		in.(*input).warnOfExpiry(now)
		var messages []string
		for line := range strings.Lines(log.String()) {
			_, message, _ := strings.Cut(line, "msg=")
			messages = append(messages, strings.TrimSpace(message))
		}
		return strings.Join(messages, "\n")
	}
	const soon = `"the approval of a rule ends soon" kind=allow rule=soon expires=2030-01-10`
	for _, step := range []struct {
		after time.Duration
		want  string
	}{
		{after: 0, want: soon},
		{after: 10 * time.Second},
		{after: 24 * time.Hour, want: soon},
		{after: 23 * time.Hour},
		{after: 9 * 24 * time.Hour, want: `"the approval of a rule has ended, it no longer allows anything" kind=allow rule=soon expires=2030-01-10`},
	} {
		if got := lines(step.after); got != step.want {
			t.Errorf("after %v logged %q, want %q", step.after, got, step.want)
		}
	}
	successor, log2 := openLogging(t, options, plugin.Env{Name: pointListener})
	successor.(*input).InheritFrom(in)
	successor.(*input).warnOfExpiry(now)
	if log2.Len() > 0 {
		t.Errorf("after a reload logged again: %s", log2)
	}
}

func TestGathersWarnOfExpiringRules(t *testing.T) {
	options := Defaults()
	options.Allow = []expect.Allow{{
		Name: "soon", Criteria: expect.Criteria{Process: plugin.Strings{"none"}},
		Approval: expect.Approval{Expires: time.Now().UTC().AddDate(0, 0, 7).Format(time.DateOnly)},
	}}
	in, log := openLogging(t, options, plugin.Env{Name: pointListener})
	for range 2 {
		if _, err := in.Gather(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(log.String(), `msg="the approval of a rule ends soon" kind=allow rule=soon`); got != 1 {
		t.Errorf("two gathers warn %d times of a rule that expires in a week, want once; logged:\n%s", got, log)
	}
}

func TestLimitsLastUntilTheyAreFixed(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	limits := func(step string, want ...string) {
		t.Helper()
		var got []string
		for _, sentence := range o.Limits() {
			begin, _, _ := strings.Cut(sentence, ":")
			got = append(got, begin)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limits %s (-want +got):\n%s\n%q", step, diff, o.Limits())
		}
	}
	limits("before the first gather")
	o.gatherAfter(0)
	limits("at first")
	web := service(t, "web", "127.0.0.1", 4000)
	withoutReading(t, func() {
		o.gatherAfter(10 * time.Second)
		limits("without capabilities", "some owners are unknown")
		o.gatherBriefly(time.Millisecond) // no search for owners ends
		limits("between two searches", "some owners are unknown")
		web.End()
		o.gatherAfter(10 * time.Second)
		limits("without a listener whose owner is unknown")
		service(t, "web", "127.0.0.1", 4000)
		o.gatherAfter(10 * time.Second)
		limits("with another one", "some owners are unknown")
	})
	o.gatherAfter(10 * time.Second)
	limits("with capabilities again")
	if n := strings.Count(o.log.String(), "some owners are unknown"); n != 1 {
		t.Errorf("logged %d times: %s", n, o.log)
	}
}

func TestLimitsNameOneNamespaceAndCountTheOthers(t *testing.T) {
	in, _ := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	o := in.(*input)
	for _, name := range []string{"a", "b", "c"} {
		o.listeners.tables = append(o.listeners.tables, &table{name: name, failed: name != "a"})
		if name != "a" {
			o.warn(foreignNamespaces, "cannot list a network namespace", "netns", name, "error", errors.New("refused"))
		}
	}
	o.warnOfNamespaces()
	o.limits.commit()
	want := []string{"cannot list a network namespace (netns b: refused), and 1 more"}
	if diff := cmp.Diff(want, o.Limits()); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}
