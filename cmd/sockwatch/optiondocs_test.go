package main

import (
	"encoding"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/BurntSushi/toml"
)

// root is the repository as the tests of this package see it.
const root = "../.."

// An option is one field of an options struct.
type option struct {
	name   string
	doc    []string // lines
	value  reflect.Value
	nested [][]option // for a slice of structs: the options of every element
}

// optionsOf returns the options of a struct (a pointer to it) with the comments
// of their fields, in the order of the source.
func optionsOf(t *testing.T, options any) []option {
	t.Helper()
	return structOptions(t, reflect.ValueOf(options).Elem())
}

func structOptions(t *testing.T, v reflect.Value) []option {
	t.Helper()
	docs := fieldDocs(t, v.Type())
	var all []option
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			all = append(all, structOptions(t, v.Field(i))...)
			continue
		}
		o := option{name: f.Tag.Get("toml"), doc: docs[f.Name], value: v.Field(i)}
		if hint, ok := f.Tag.Lookup("deprecated"); ok {
			o.doc = append(o.doc, "Deprecated: "+hint+".")
		}
		if o.name == "" || len(o.doc) == 0 {
			t.Fatalf("%v.%s has no toml tag or no doc comment", v.Type(), f.Name)
		}
		if len(o.doc) > 3 {
			t.Errorf("%v.%s: a doc comment has three lines at most, that of a deprecated option two", v.Type(), f.Name)
		}
		if _, value := o.value.Interface().(toml.Marshaler); !value && f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			for j := range o.value.Len() {
				o.nested = append(o.nested, structOptions(t, o.value.Index(j)))
			}
		}
		all = append(all, o)
	}
	return all
}

// fieldDocs returns the lines of the doc comments of a struct's fields.
func fieldDocs(t *testing.T, typ reflect.Type) map[string][]string {
	t.Helper()
	docs := make(map[string][]string)
	for _, file := range parsePackage(t, packageDir(typ.PkgPath())) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != typ.Name() {
				return true
			}
			for _, f := range spec.Type.(*ast.StructType).Fields.List {
				for _, name := range f.Names {
					docs[name.Name] = strings.FieldsFunc(f.Doc.Text(), func(r rune) bool { return r == '\n' })
				}
			}
			return false
		})
	}
	return docs
}

// packageDir returns the folder of a package of this module.
func packageDir(path string) string {
	return filepath.Join(root, strings.TrimPrefix(path, "sockwatch/"))
}

// parsedPackages are the packages that parsePackage has parsed, by folder.
var parsedPackages sync.Map

// parsePackage parses the sources of a folder, without its tests, once. The files must not
// be changed.
func parsePackage(t *testing.T, dir string) []*ast.File {
	t.Helper()
	if files, ok := parsedPackages.Load(dir); ok {
		return files.([]*ast.File)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		t.Fatalf("%s holds no Go files", dir)
	}
	parsedPackages.Store(dir, files)
	return files
}

// packageSynopsis returns the description in a package's doc comment: "Package x does
// y." gives "Does y.", and "Package x is the input x: y." gives "Y.".
func packageSynopsis(t *testing.T, dir string) string {
	t.Helper()
	for _, file := range parsePackage(t, dir) {
		if file.Doc == nil {
			continue
		}
		s := new(doc.Package).Synopsis(file.Doc.Text())
		s = strings.TrimPrefix(s, "Package "+file.Name.Name+" ")
		if _, what, ok := strings.Cut(s, ": "); ok && strings.HasPrefix(s, "is ") {
			s = what
		}
		return strings.ToUpper(s[:1]) + s[1:]
	}
	t.Fatalf("%s: no package comment", dir)
	return ""
}

// inlineTOML writes a value as it appears after the "=" of an option.
func inlineTOML(t *testing.T, v reflect.Value) string {
	t.Helper()
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		return tomlString(t, string(text))
	}
	if m, ok := v.Interface().(toml.Marshaler); ok {
		text, err := m.MarshalTOML()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.String:
		return tomlString(t, v.String())
	case reflect.Slice:
		var elements []string
		for i := range v.Len() {
			elements = append(elements, inlineTOML(t, v.Index(i)))
		}
		if v.Len() == 1 && v.Type().Name() == "Strings" {
			return elements[0]
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case reflect.Map:
		var entries []string
		for _, key := range slices.Sorted(maps.Keys(mapKeys(v))) {
			name := key
			if strings.Contains(key, ".") {
				name = strconv.Quote(key)
			}
			entries = append(entries, name+" = "+inlineTOML(t, v.MapIndex(reflect.ValueOf(key))))
		}
		if len(entries) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(entries, ", ") + " }"
	default:
		return fmt.Sprint(v.Interface())
	}
}

func mapKeys(v reflect.Value) map[string]bool {
	keys := make(map[string]bool)
	for _, k := range v.MapKeys() {
		keys[k.String()] = true
	}
	return keys
}

func tomlString(t *testing.T, s string) string {
	t.Helper()
	text, err := toml.Marshal(map[string]string{"k": s})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "k = "))
}

// readFile returns a file of the repository.
func readFile(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
