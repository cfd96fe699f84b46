package livepage

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestWhatASearchSelects(t *testing.T) {
	p := listener(8080, "nginx", "address", "10.1.2.3", "container", "0123456789ab", "team", "a,b c")
	p = with(with(p, "established", metric.Int(12)), "exe_deleted", metric.Bool(true))
	unreachable := listener(53, "dns", "address", "::ffff:127.0.0.1", "exposure", "")
	for _, test := range []struct {
		search  string
		trusted bool
		of      metric.Point
		want    bool
	}{
		{search: "", of: p, want: true},
		{search: "port:8080", of: p, want: true},
		{search: "port:80", of: p},
		{search: "port:8000-8100", of: p, want: true},
		{search: "port:1,8080", of: p, want: true},
		{search: "port:80*", of: p, want: true},
		{search: "port:80 port:8080", of: p, want: true},
		{search: "port:8080 process:apache", of: p},
		{search: "process:ngin?", of: p, want: true},
		{search: "process:Nginx", of: p},
		{search: "-process:nginx", of: p},
		{search: "-process:apache -process:x", of: p, want: true},
		{search: "process:n* -process:nginx", of: p},
		{search: "address:10.0.0.0/8", of: p, want: true},
		{search: "address:127.0.0.0/8", of: unreachable, want: true},
		{search: "address:192.168.0.0/16,10.1.*", of: p, want: true},
		{search: "address:10.2.0.0/16", of: p},
		{search: "container:*", of: p, want: true},
		{search: "container:*", of: unreachable},
		{search: "-container:*", of: unreachable, want: true},
		{search: "exposure:none", of: unreachable, want: true},
		{search: "exposure:none", of: p},
		{search: `team:"a\,b c"`, of: p, want: true},
		{search: "established:>11", of: p, want: true},
		{search: "established:>12", of: p},
		{search: "established:>=12 established:<5", of: p, want: true},
		{search: "established:<=11.5", of: p},
		{search: "established:12", of: p, want: true},
		{search: "process:>1", of: p},
		{search: "exe_deleted:true", of: p, want: true},
		{search: "NGINX 10.1", of: p, want: true},
		{search: "nginx apache", of: p},
		{search: "-apache", of: p, want: true},
		{search: "10.1.2.3:8080", of: p, want: true},
		{search: "9080", of: p, want: true}, // the pid
		{search: "ng*nx", of: p, want: true},
		{search: "nginx*10.1", of: p}, // not in one value
		{search: "/usr/sbin", of: p},
		{search: "/usr/sbin", trusted: true, of: p, want: true},
		{search: "exe:/usr/*", of: p},
		{search: "exe:/usr/*", trusted: true, of: p, want: true},
		{search: "-exe:/usr/*", trusted: true, of: p},
		{search: "password", trusted: true, of: p},
		{search: "cmdline:*", trusted: true, of: p},
	} {
		q := search(test.search)
		if len(q.problems) > 0 {
			t.Errorf("%s: %q", test.search, q.problems)
		}
		if got := q.matches(&newRow("tcp_listen", &test.of, nil).searchable, test.trusted); got != test.want {
			t.Errorf("%q, trusted %v: %v, want %v", test.search, test.trusted, got, test.want)
		}
	}
}

func TestWhatIsIgnoredOfASearch(t *testing.T) {
	known := map[string]audience{"port": everyone, "process": everyone, "exe": trustedOnly, "cmdline": nobody}
	for _, test := range []struct {
		name, search string
		trusted      bool
		want         []string
		wantTerms    int
	}{
		{name: "mistyped", search: "prot:443 process:x", wantTerms: 1,
			want: []string{`No listener or event has "prot". Did you mean "port"? To search for the text, write "prot:443". This term is ignored.`}},
		{name: "begun", search: "proc:x", want: []string{`No listener or event has "proc". Did you mean "process"? To search for the text, write "proc:x". This term is ignored.`}},
		{name: "nothing like it", search: "localhost:80", want: []string{`No listener or event has "localhost". To search for the text, write "localhost:80". This term is ignored.`}},
		{name: "no value", search: "process: port:443", wantTerms: 1, want: []string{"process: has no value. This term is ignored."}},
		{name: "empty quotes", search: `"" port:443`, wantTerms: 1, want: []string{`"" has no value. This term is ignored.`}},
		{name: "no port", search: "port:http", want: []string{`"http" is not a port (1 to 65535) or a range such as 8000-8100. This term is ignored.`}},
		{name: "no network", search: "address:10.0.0.0/99", want: []string{`"10.0.0.0/99" is not a network such as 10.0.0.0/8. This term is ignored.`}},
		{name: "network of three numbers", search: "address:127.*,10.0.0/24", want: []string{`"10.0.0/24" is not a network such as 10.0.0.0/8. This term is ignored.`}},
		{name: "bad glob", search: "process:[a", want: []string{`pattern "[a": "[" without "]". This term is ignored.`}},
		{name: "not for everyone", search: "exe:/bin/* port:1", wantTerms: 1,
			want: []string{`"exe" is shown only to readers on this host or with authentication. This term is ignored.`}},
		{name: "trusted", search: "exe:/bin/*", trusted: true, wantTerms: 1},
		{name: "for nobody", search: "cmdline:x", trusted: true, want: []string{`"cmdline" is never shown here. This term is ignored.`}},
		{name: "too long", search: "x " + strings.Repeat("é", 40000), wantTerms: 2, want: []string{"The search is longer than 1024 bytes. The rest is ignored."}},
		{name: "too many", search: strings.Repeat("x ", 500), wantTerms: 32, want: []string{"The search has more than 32 terms. The rest is ignored."}},
		{name: "too many wildcards", search: "a " + strings.Repeat("*", 33) + " b", wantTerms: 1, want: []string{"The search has more than 32 wildcards (*). The rest is ignored."}},
		{name: "NULs and no UTF-8", search: "\x00\x00 a\xff\xfe:b", wantTerms: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := search(test.search).restrict(known, test.trusted)
			if diff := cmp.Diff(test.want, q.messages()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(q.terms) != test.wantTerms {
				t.Errorf("%d terms are left, want %d", len(q.terms), test.wantTerms)
			}
		})
	}
}

func TestToggledTermsKeepTheOthers(t *testing.T) {
	for _, test := range []struct{ search, value, want string }{
		{"", "public", "exposure:public"},
		{"exposure:public", "public", ""},
		{`"a:b"  -process:"x y" exposure:private`, "public", `"a:b" -process:"x y" exposure:private exposure:public`},
		{"nginx exposure:public port:1", "public", "nginx port:1"},
		{"-exposure:public", "public", "-exposure:public exposure:public"},
	} {
		q := search(test.search)
		if got := q.toggled(exactly("exposure", test.value)); got != test.want {
			t.Errorf("%q with %s: %q, want %q", test.search, test.value, got, test.want)
		}
	}
}

// TestTextsAreComparedWithoutAllocating: 32 terms are compared with every text of up to 5,000
// listeners and 2,000 events, for each gather and viewer.
func TestTextsAreComparedWithoutAllocating(t *testing.T) {
	p := listener(443, "nginx")
	r := newRow("tcp_listen", &p, nil)
	for _, text := range []string{"nginx", "-apache", "n*x", "*a*b*c*d", "-*.serv*ice -x*y"} {
		q := search(text)
		if n := testing.AllocsPerRun(10, func() { q.matches(&r.searchable, true) }); n > 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

// FuzzQuery: any search is parsed without a panic and within its limits, its words can be
// written and read again, and it can be evaluated.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "port:443 process:nginx* exposure:public", `-user:"a ""b""" x`, "port:8000-", "a:>=1e999 b:<nan", `"`, `\`, "fe80::1%eth0",
		"address:10.0.0.0/8,::/0", "\x00\xff:", "[", "a:{b,{c}", "é:ü \u2028 x", "--a:b", strings.Repeat("(", 2000),
	} {
		f.Add(s, "value")
	}
	p := listener(443, "nginx")
	r := newRow("tcp_listen", &p, nil)
	f.Fuzz(func(t *testing.T, s, value string) {
		q := search(s, "sort", s, "from", s)
		if !utf8.ValidString(q.Text) || len(q.Text) > maxSearch || len(q.terms) > maxTerms {
			t.Fatalf("%q: %d bytes, %d terms", q.Text, len(q.Text), len(q.terms))
		}
		q.matches(&r.searchable, true)
		for _, w := range splitWords(q.Text) {
			if w.exclude && w.key == "" && w.value == "" {
				continue // a "-" alone
			}
			again := splitWords(w.String())
			if w.value == "" && w.key == "" {
				continue // quotes alone
			}
			if len(again) != 1 || again[0] != w {
				t.Fatalf("%+v is written as %q and read as %+v", w, w, again)
			}
		}
		if value = strings.ToValidUTF8(value, "?"); value == "" || len(value) > 200 {
			return
		}
		exact := search(exactly("unit", value).String())
		same, other := metric.Point{Tags: metric.NewTags("unit", value)}, metric.Point{Tags: metric.NewTags("unit", value+"x")}
		a, b := newSearchable(&same), newSearchable(&other)
		if len(exact.problems) > 0 || !exact.matches(&a, false) || exact.matches(&b, false) {
			t.Fatalf("%q is not found exactly by %q: %q", value, exact.Text, exact.problems)
		}
	})
}
