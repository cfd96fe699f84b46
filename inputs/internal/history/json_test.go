package history

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
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil || got != want {
			t.Errorf("%q reads as %q, %v", s, got, err)
		}
	})
}

func TestObjectsAndArrays(t *testing.T) {
	b := append([]byte{}, '{')
	b = append(appendString(appendKey(b, "a"), "x"), ',')
	b = end(append(appendKey(b, "b"), '['), ']')
	b = end(append(appendKey(b, "c"), '{'), '}')
	b = end(b, '}')
	if want := `{"a":"x","b":[],"c":{}},`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
