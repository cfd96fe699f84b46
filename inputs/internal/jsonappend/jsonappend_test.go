package jsonappend

import (
	"encoding/json"
	"testing"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "nginx", `a"b\c`, "a\nb", "\xff", "é", "<&>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got, want string
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(String(nil, s), &got); err != nil || got != want {
			t.Errorf("%q reads as %q, %v", s, got, err)
		}
	})
}

func TestObjectsAndArrays(t *testing.T) {
	b := append([]byte{}, '{')
	b = append(String(Key(b, "a"), "x"), ',')
	b = End(append(Key(b, "b"), '['), ']')
	b = End(append(Key(b, "c"), '{'), '}')
	b = End(b, '}')
	if want := `{"a":"x","b":[],"c":{}},`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
