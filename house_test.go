package sslstream_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
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
