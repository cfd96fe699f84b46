package expect

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"sockwatch/inputs/internal/escape"
)

// FuzzRules: valid rules compile. Whatever the rules are, the verdict on a listener agrees
// with its reason, and the points are valid.
func FuzzRules(f *testing.F) {
	for _, seed := range []string{
		audited, web + telnet, "[[allow]]\naddress = ['0.0.0.0/0', '::', '[12]*']\nexposure = 'p*'\nfamily = ''\n",
		"[[expect]]\nname = 'x'\nport = '1-65535'\nmin = 3\nunit = ['{a,b}*', '']\nexpires = '2026-11-26'\nlabels = {a = 'b'}\n",
	} {
		f.Add(seed)
	}
	listeners := []*Listener{nginx(80), nginx(443, unreadable), nginx(22, pending), nginx(53, none), nginx(23, at("::1"), by("nc"))}
	f.Fuzz(func(t *testing.T, text string) {
		o := Defaults()
		if _, err := toml.Decode(text, &o); err != nil {
			return
		}
		err := o.ValidateRules(nil)
		r, compileErr := Compile(o)
		if err != nil {
			return
		}
		if compileErr != nil {
			t.Fatalf("valid, but: %v", compileErr)
		}
		for _, l := range listeners {
			v, why := r.Verdict(l, now), r.Why(l, now)
			if why.Why == "" || (v.Expected == Yes || v.Expected == Forbidden) && why.Rule != v.Rule {
				t.Errorf("verdict %+v, reason %+v", v, why)
			}
			isRule := func(sentence string) bool { return strings.Contains(sentence, " "+v.Rule) }
			if matching := r.Matching(l, now); v.Rule != "" && !slices.ContainsFunc(matching, isRule) {
				t.Errorf("rule %q decided, but %q match", v.Rule, matching)
			}
			if v.Expected == Undecided && why.Rule == "" {
				t.Errorf("undecided for no reason: %+v", why)
			}
		}
		s := &simulation{t: t, rules: r, tracker: NewTracker(r, trackerOptions), records: map[string]json.RawMessage{}, clock: now, mono: time.Hour, boot: "b"}
		s.scan(listeners...)
		s.pass(time.Hour)
		s.scan(listeners[:2]...)
		s.restart()
		s.scan()
		if report := NewReport(r, listeners, now); report.OK != strings.HasSuffix(report.Text(), ": ok\n") {
			t.Errorf("ok %v, but\n%s", report.OK, report.Text())
		}
	})
}

// FuzzRecords: whatever the history contains, the tracker continues, and deletes the records
// that it does not understand.
func FuzzRecords(f *testing.F) {
	f.Add("r:violation:0123", `{"v":"forbidden","r":"telnet","t":{"port":"23"},"s":{"t":1,"m":1,"b":"b"},"g":{"t":2,"m":2,"b":"b"},"e":true}`)
	f.Add("r:expect:web", `{"k":true,"s":{"t":-1,"m":-9223372036854775808,"b":"b"}}`)
	f.Add("r:forbid:telnet", `null`)
	f.Fuzz(func(t *testing.T, key, record string) {
		s := &simulation{
			t: t, rules: compile(t, web+telnet), clock: now, mono: time.Hour, boot: "b",
			records: map[string]json.RawMessage{key: json.RawMessage(record)},
		}
		s.restart()
		s.scan(nginx(23))
		s.pass(time.Hour)
		s.scan(nginx(80), nginx(443))
		s.pass(time.Hour)
		s.scan(nginx(80), nginx(443))
		for k := range s.records {
			if k != key && k != "r:expect:web" && k != "r:forbid:telnet" {
				t.Errorf("record %q is left", k)
			}
		}
	})
}

// FuzzSuggestedRules: whatever the names of processes, programs and units are, the rule that
// is generated from a listener is valid and matches it.
func FuzzSuggestedRules(f *testing.F) {
	f.Add("nginx", "/usr/sbin/nginx", "nginx.service", "root", uint16(80))
	f.Add(`a*"\x0a`, "/tmp/[${X}]", "a@b.service", "1000", uint16(40000))
	f.Fuzz(func(t *testing.T, process, exe, unit, user string, port uint16) {
		for _, s := range []string{process, exe, unit, user} {
			if s == "" || escape.Name([]byte(s)) != strings.ReplaceAll(s, `\`, `\x5c`) { // not printable
				return
			}
		}
		if port == 0 {
			return
		}
		l := nginx(port, func(l *Listener) { l.User = user }, held(Holder{Process: process, Exe: exe, Unit: unit}))
		text := Print(Suggest([]*Listener{l}, ephemeral), "")
		o := readRules(t, strings.ReplaceAll(text, "$${", "${")) // as expanded by the loader
		o.Unlisted = UnlistedUnexpected
		if err := o.ValidateRules(nil); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		r, err := Compile(o)
		if err != nil {
			t.Fatal(err)
		}
		if report := NewReport(r, []*Listener{l}, now); !report.OK {
			t.Errorf("%s\n%s", report.Text(), text)
		}
	})
}
