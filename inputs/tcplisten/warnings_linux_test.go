package tcplisten

import (
	"bytes"
	"log/slog"
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
	hidden := owner.Report{Hidden: "processes outside of one pid namespace are not visible"}
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

func TestRulesThatExpireAreLoggedOnceADay(t *testing.T) {
	port := expect.Criteria{Port: expect.Ports{{First: 80, Last: 80}}}
	o := Defaults()
	o.Expect = []expect.Expect{{Name: "soon", Criteria: port, Min: 1, Approval: expect.Approval{Expires: "2026-12-01"}}}
	o.Allow = []expect.Allow{{Name: "past", Criteria: port, Approval: expect.Approval{Expires: "2026-11-01"}}, {Name: "far", Criteria: port}}
	o.Forbid = []expect.Forbid{{Name: "ban", Criteria: port, Approval: expect.Approval{Expires: "2026-11-01"}}}
	rules, err := expect.Compile(o.Options)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	in := &input{rules: rules, env: plugin.Env{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	in.warnOfExpiry(now)
	in.warnOfExpiry(now.Add(23 * time.Hour))
	want := `level=WARN msg="the approval of a rule has ended, it still forbids" kind=forbid rule=ban last_day=2026-11-01
level=WARN msg="the approval of a rule ends soon" kind=expect rule=soon last_day=2026-12-01
level=WARN msg="the approval of a rule has ended, it allows nothing any more" kind=allow rule=past last_day=2026-11-01
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	in.warnOfExpiry(now.Add(24 * time.Hour))
	if diff := cmp.Diff(want+want, log.String()); diff != "" {
		t.Errorf("log of the next day (-want +got):\n%s", diff)
	}
}
