package tcplisten

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
