package sslstream_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOnlyAuthDecidesAboutPeers keeps the fields by which crypto/tls would decide about a peer in one room. Clearing one is
// allowed anywhere.
func TestOnlyAuthDecidesAboutPeers(t *testing.T) {
	deciding := []string{"InsecureSkipVerify", "VerifyConnection", "VerifyPeerCertificate", "ClientAuth", "WrapSession", "UnwrapSession"}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	set := map[string]int{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			assign, ok := n.(*ast.AssignStmt)
			if !ok {
				return true
			}
			for i, left := range assign.Lhs {
				field, ok := left.(*ast.SelectorExpr)
				if !ok || !slices.Contains(deciding, field.Sel.Name) {
					continue
				}
				if value, ok := assign.Rhs[min(i, len(assign.Rhs)-1)].(*ast.Ident); !ok || value.Name != "nil" {
					set[file]++
				}
			}
			return true
		})
	}
	assert.NotZero(t, set["auth.go"])
	delete(set, "auth.go")
	assert.Empty(t, set, "crypto/tls is told whom to trust in auth.go only")
}

// TestDocsNameTestsThatExist holds every test that the documents name against the tests there are.
func TestDocsNameTestsThatExist(t *testing.T) {
	have := map[string]bool{}
	var docs []string
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		switch {
		case d.IsDir():
			return nil
		case err != nil:
			return err
		case strings.HasSuffix(path, "_test.go"):
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)`).FindAllSubmatch(text, -1) {
				have[string(m[1])] = true
			}
		case strings.HasSuffix(path, ".md"):
			docs = append(docs, path)
		}
		return nil
	}))
	assert.NotEmpty(t, docs)
	for _, path := range docs {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(string(text), -1) {
			assert.True(t, have[name], "%s names %s, which does not exist", path, name)
		}
	}
}

// TestDocsNameMembersThatExist holds the members that the documents name against the package's, and those of a developer's
// daily work against the migration guide.
func TestDocsNameMembersThatExist(t *testing.T) {
	have := map[string]map[string]bool{} // by type
	add := func(typ, member string) {
		if !ast.IsExported(typ) || !ast.IsExported(member) {
			return
		}
		if have[typ] == nil {
			have[typ] = map[string]bool{}
		}
		have[typ][member] = true
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					typ := n.Recv.List[0].Type
					if star, ok := typ.(*ast.StarExpr); ok {
						typ = star.X
					}
					add(typ.(*ast.Ident).Name, n.Name.Name)
				}
				return false
			case *ast.TypeSpec:
				if st, ok := n.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						for _, name := range field.Names {
							add(n.Name.Name, name.Name)
						}
					}
				}
			}
			return true
		})
	}

	named := map[string]map[string]bool{}
	for _, path := range []string{"README.md", "docs/security.md", "docs/dotnet-migration.md"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile("`(\\w+)\\.(\\w+)`|sslstream#(\\w+)\\.(\\w+)").FindAllStringSubmatch(string(text), -1) {
			typ, member := m[1]+m[3], m[2]+m[4]
			if have[typ] == nil {
				continue // .NET's, or another package's
			}
			assert.True(t, have[typ][member], "%s names %s.%s, which does not exist", path, typ, member)
			if named[typ] == nil {
				named[typ] = map[string]bool{}
			}
			named[typ][member] = true
		}
	}
	for _, typ := range []string{"Stream", "ClientOptions", "ServerOptions", "ChainPolicy", "CertificateContext", "AuthenticationError"} {
		require.NotEmpty(t, have[typ], typ)
		for member := range have[typ] {
			if typ == "AuthenticationError" && (member == "Error" || member == "Unwrap") {
				continue // every error has them
			}
			assert.True(t, named[typ][member], "the documents do not name %s.%s", typ, member)
		}
	}
}
