package filter

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

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

func TestFactsAreHiddenLikeTagsAndFields(t *testing.T) {
	p := metric.Point{Name: "a", Tags: metric.NewTags("user", "root"), Fields: []metric.Field{{Key: "exe", Value: metric.String("/bin/a")}}}
	tests := []struct {
		name string
		o    Options
		want []string // of user, exe and inode, which the point does not have
	}{
		{name: "nothing set"},
		{name: "other filters", o: Options{NamePass: []string{"b"}, TagDrop: map[string][]string{"user": {"root"}}}},
		{name: "tagexclude", o: Options{TagExclude: []string{"user", "inode"}}, want: []string{"user", "inode"}},
		{name: "fieldexclude", o: Options{FieldExclude: []string{"e*", "inode"}}, want: []string{"exe", "inode"}},
		{name: "taginclude", o: Options{TagInclude: []string{"port"}}, want: []string{"user", "inode"}},
		{name: "fieldinclude", o: Options{FieldInclude: []string{"sockets"}}, want: []string{"exe", "inode"}},
		{name: "both includes", o: Options{TagInclude: []string{"user", "inode"}, FieldInclude: []string{"exe", "inode"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := New(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, key := range []string{"user", "exe", "inode"} {
				if f.Hides(key, &p) {
					got = append(got, key)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("hidden (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryBadPatternIsNamed(t *testing.T) {
	_, err := New(Options{NamePass: []string{"{"}, TagPass: map[string][]string{"port": {}}, TagDrop: map[string][]string{"k": {"[", ""}}})
	want := `namepass: pattern "{": "{" without "}"
tagpass: port has no patterns and matches nothing
tagdrop: pattern "[": "[" without "]"
pattern "": is empty and matches nothing`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
