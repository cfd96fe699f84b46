package filter

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestGlobs(t *testing.T) {
	tests := []struct {
		glob      string
		yes, no   []string
		wantError string
	}{
		{"tcp_listen*", []string{"tcp_listen", "tcp_listen_event"}, []string{"x_tcp_listen", "tcp"}, ""},
		{"a?c", []string{"abc", "aéc"}, []string{"ac", "abbc"}, ""},
		{"[a-c]x", []string{"ax", "cx"}, []string{"dx", "x"}, ""},
		{"[!a]x", []string{"bx"}, []string{"ax"}, ""},
		{"[]]x", nil, nil, `pattern "[]]x": "[" without "]"`},
		{"{a,b{1,2}}.*", []string{"a.", "b1.x", "b2.y"}, []string{"b.", "b3.x"}, ""},
		{`\*`, []string{"*"}, []string{"x"}, ""},
		{"a.b", []string{"a.b"}, []string{"axb"}, ""},
		{"/usr/*", []string{"/usr/bin/x"}, []string{"/opt"}, ""},
		{"x*", []string{"x\ny"}, nil, ""},
		{"{a", nil, nil, `pattern "{a": "{" without "}"`},
		{"a}", nil, nil, `pattern "a}": "}" without "{"`},
		{"[a", nil, nil, `pattern "[a": "[" without "]"`},
		{`a\`, nil, nil, `pattern "a\\": "\" at its end`},
		{"[b-a]", nil, nil, `pattern "[b-a]": it is no glob`},
		{"", []string{""}, []string{"x"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.glob, func(t *testing.T) {
			g, err := compile([]string{tt.glob})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.wantError {
				t.Fatalf("error %q, want %q", got, tt.wantError)
			}
			for _, s := range tt.yes {
				if !g.match(s) {
					t.Errorf("does not match %q", s)
				}
			}
			for _, s := range tt.no {
				if g.match(s) {
					t.Errorf("matches %q", s)
				}
			}
		})
	}
}

func TestPointsAreSelectedAndModified(t *testing.T) {
	all := []metric.Point{
		{Name: "a", Tags: metric.NewTags("user", "root", "port", "22"), Fields: []metric.Field{{Key: "x", Value: metric.Int(1)}, {Key: "y", Value: metric.Int(2)}}},
		{Name: "b", Tags: metric.NewTags("user", "www"), Fields: []metric.Field{{Key: "x", Value: metric.Int(1)}}},
		{Name: "c", Fields: []metric.Field{{Key: "y", Value: metric.Int(2)}}},
	}
	tests := []struct {
		name string
		o    Options
		want []string
	}{
		{"nothing set", Options{}, []string{`a{port="22",user="root"} x y`, `b{user="www"} x`, `c{} y`}},
		{"namepass", Options{NamePass: []string{"a", "c*"}}, []string{`a{port="22",user="root"} x y`, `c{} y`}},
		{"namedrop", Options{NameDrop: []string{"[ab]"}}, []string{`c{} y`}},
		{"tagpass: any of its tags", Options{TagPass: map[string][]string{"user": {"w*"}, "port": {"22"}}}, []string{`a{port="22",user="root"} x y`, `b{user="www"} x`}},
		{"tagdrop", Options{TagDrop: map[string][]string{"user": {"root"}}}, []string{`b{user="www"} x`, `c{} y`}},
		{"taginclude", Options{TagInclude: []string{"us*"}}, []string{`a{user="root"} x y`, `b{user="www"} x`, `c{} y`}},
		{"tagexclude", Options{TagExclude: []string{"user"}}, []string{`a{port="22"} x y`, `b{} x`, `c{} y`}},
		{"fieldinclude", Options{FieldInclude: []string{"x"}}, []string{`a{port="22",user="root"} x`, `b{user="www"} x`}},
		{"fieldexclude", Options{FieldExclude: []string{"x"}}, []string{`a{port="22",user="root"} y`, `c{} y`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := New(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range f.Points(all) {
				s := p.Series()
				for _, field := range p.Fields {
					s += " " + field.Key
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
			if len(all[0].Tags) != 2 || len(all[0].Fields) != 2 {
				t.Error("the points themselves were changed")
			}
		})
	}
}

func TestEveryBadPatternIsNamed(t *testing.T) {
	_, err := New(Options{NamePass: []string{"{"}, TagDrop: map[string][]string{"k": {"["}}})
	want := "namepass: pattern \"{\": \"{\" without \"}\"\ntagdrop: pattern \"[\": \"[\" without \"]\""
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// What translate accepts is a regular expression, and a pattern without special
// characters matches itself alone.
func FuzzTranslate(f *testing.F) {
	for _, s := range []string{"a*", "[!a-z]", "{a,b}", `\{`, "[[:alpha:]]", "[^a]", "é?", "{{a},b}", "[a-]", `[\]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, glob string) {
		expr, err := translate(glob)
		if err != nil {
			return
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return // compile reports it
		}
		if regexp.MustCompile(`^[\pL\pN_./ -]*$`).MatchString(glob) && (!re.MatchString(glob) || re.MatchString(glob+"x")) {
			t.Errorf("%q does not match itself alone", glob)
		}
	})
}
