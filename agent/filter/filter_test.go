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
