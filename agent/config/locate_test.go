package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestLocate(t *testing.T) {
	const text = `a = 1 # [[x]]
"b c".d = """
e = 1 \"""
""""
f = [ # [
  1, "]", [2,
    3],
  { g = 1, h = [
    '''
''''', { i = 1 }] },
]
[[t]]
j = 1979-05-27 07:32:00
[[ t ]]
 "k\u0041" = 'x'
  [t.u.'v.w']
  l.m = { n = 1,
    o = 2 }
  [[t.x]]
  [[t.x]]
  p = -1e6
[q]
`
	root := locate(text)
	u := root.key("t").item(1).key("u").key("v.w")
	f := root.key("f")
	for _, test := range []struct {
		name string
		node *node
		want int
	}{
		{"a", root.key("a"), 1},
		{"b c.d", root.key("b c").key("d"), 2},
		{"f", f, 5},
		{"f[0]", f.item(0), 6},
		{"f[2][1]", f.item(2).item(1), 7},
		{"f[3].g", f.item(3).key("g"), 8},
		{"f[3].h[0]", f.item(3).key("h").item(0), 9},
		{"f[3].h[1].i", f.item(3).key("h").item(1).key("i"), 10},
		{"t[0].j", root.key("t").item(0).key("j"), 13},
		{"t[1]", root.key("t").item(1), 14},
		{"t[1].kA", root.key("t").item(1).key("kA"), 15},
		{"t[1].u.v.w", u, 16},
		{"t[1].u.v.w.l.m.n", u.key("l").key("m").key("n"), 17},
		{"t[1].u.v.w.l.m.o", u.key("l").key("m").key("o"), 18},
		{"t[1].x[1].p", root.key("t").item(1).key("x").item(1).key("p"), 21},
		{"q", root.key("q"), 22},
		{"q.none", root.key("q").key("none").item(3), 22},
	} {
		if test.node.line != test.want {
			t.Errorf("%s is on line %d, want %d", test.name, test.node.line, test.want)
		}
	}
}

// FuzzLocate checks that the nodes of every text that the library accepts have the shape
// of its values, each on a possible line.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{
		"a = 1\n[b.c]\nd = [1, {e = 2}, [3]]\n[[f]]\n[[f]]\n[f.g]\nh.i = '''\nx'''",
		"\"a\\\"b\" = \"c\\\\\"\n'd' . e = \"\"\n", "a = \"\"\"\"\"x\"\"\"\"\"\nb = ''''''\n",
		"a = [ # x\n]\nb = {}\nc = {d = 1, # x\n}\n", "[a]\r\nb = 1979-05-27T07:32:00Z\r\n", "[a]b", "[[a]", "a = [", "a=\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root := locate(text)
		var values map[string]any
		if _, err := toml.Decode(text, &values); err == nil {
			compareShape(t, "", values, root, 1+strings.Count(text, "\n"))
		}
	})
}

func compareShape(t *testing.T, path string, v any, at *node, lines int) {
	if at.line < 1 || at.line > lines {
		t.Fatalf("%s is on line %d of %d", path, at.line, lines)
	}
	if list, ok := v.([]map[string]any); ok {
		elements := make([]any, len(list))
		for i, e := range list {
			elements[i] = e
		}
		v = elements
	}
	keys, items := map[string]any{}, []any{}
	switch v := v.(type) {
	case map[string]any:
		keys = v
	case []any:
		items = v
	}
	want, got := slices.Sorted(maps.Keys(keys)), slices.Sorted(maps.Keys(at.keys))
	if !slices.Equal(want, got) || len(items) != len(at.items) {
		t.Fatalf("%q: keys %q and %d items, want %q and %d", path, got, len(at.items), want, len(items))
	}
	for key, v := range keys {
		compareShape(t, path+"."+key, v, at.keys[key], lines)
	}
	for i, v := range items {
		compareShape(t, path+"[]", v, at.items[i], lines)
	}
}
