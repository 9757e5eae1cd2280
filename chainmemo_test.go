package sslstream

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream/internal/testpki"
)

// TestChainsAreRemembered looks at what is remembered, which nothing but the time that a handshake takes shows from outside.
func TestChainsAreRemembered(t *testing.T) {
	root := testpki.Root(t, "Root")
	intermediate := root.Intermediate(t, "Intermediate", testpki.Valid(-time.Hour, 2*time.Hour))
	leaf := intermediate.Issue(t, "leaf.example", testpki.Valid(-time.Hour, 4*time.Hour)).Leaf
	stranger := testpki.Root(t, "Stranger").Issue(t, "stranger.example").Leaf
	sent := []*x509.Certificate{intermediate.Certificate}
	now := time.Now()

	p, err := compilePolicy(&ChainPolicy{CustomTrustStore: testpki.Pool(root)}, RevocationNoCheck)
	require.NoError(t, err)
	p.usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	p.memo = &chainMemo{}
	resumed := &validation{resumed: true}

	first, verified := p.build(resumed, leaf, sent, now)
	require.Empty(t, first.Status)
	require.Len(t, p.memo.young, 1)
	key := keyOf(leaf, sent)
	assert.Len(t, p.memo.recall(key, now), 1)

	verified[0][0] = stranger // what was handed out is not what is remembered
	second, verified := p.build(resumed, leaf, sent, now.Add(time.Minute))
	require.Empty(t, second.Status)
	assert.True(t, verified[0][0].Equal(leaf))

	late, _ := p.build(resumed, leaf, sent, now.Add(3*time.Hour))
	assert.True(t, late.Has(StatusNotTimeValid), "the intermediate has expired since")
	early, _ := p.build(resumed, leaf, sent, now.Add(-2*time.Hour))
	assert.True(t, early.Has(StatusNotTimeValid))

	p.roots = testpki.Pool() // which shows who is asked
	kept, _ := p.build(resumed, leaf, sent, now)
	assert.Empty(t, kept.Status, "a resumed session's chain is remembered")
	full, _ := p.build(&validation{}, leaf, sent, now)
	assert.NotEmpty(t, full.Status, "a full handshake verifies")

	refused, _ := p.build(resumed, stranger, nil, now)
	require.NotEmpty(t, refused.Status)
	assert.Len(t, p.memo.young, 1, "what was refused is not remembered")
	partial, _ := p.build(resumed, leaf, nil, now)
	assert.True(t, partial.Has(StatusPartialChain), "another set of certificates is another question")
}

// TestResumedSessionsUseTheMemo asks as a handshake does.
func TestResumedSessionsUseTheMemo(t *testing.T) {
	root := testpki.Root(t, "Root")
	sent := []*x509.Certificate{root.Issue(t, "leaf.example").Leaf}
	p, err := compilePolicy(&ChainPolicy{CustomTrustStore: testpki.Pool(root)}, RevocationNoCheck)
	require.NoError(t, err)
	p.memo = &chainMemo{}
	host, err := parseTargetHost("leaf.example")
	require.NoError(t, err)
	judge := func(resumed bool) PolicyErrors {
		return p.judge(t.Context(), evidence{sent: sent, ofServer: true, host: host, resumed: resumed}, time.Now()).errs
	}
	require.Zero(t, judge(false))
	p.roots = testpki.Pool() // which shows who is asked
	assert.Zero(t, judge(true), "a resumed session")
	assert.Equal(t, RemoteCertificateChainErrors, judge(false), "a full handshake")
}

func TestChainMemoForgets(t *testing.T) {
	m := &chainMemo{}
	c := testpki.Root(t, "Root").Certificate
	chains := [][]*x509.Certificate{{c}}
	key := func(i int) chainKey { return chainKey{byte(i), byte(i >> 8)} }
	for i := range 10 * memoGeneration {
		m.store(key(i), chains)
		require.NotEmpty(t, m.recall(key(0), time.Now()), "what is asked for again and again stays")
	}
	assert.LessOrEqual(t, len(m.young)+len(m.old), 2*memoGeneration)
	assert.Empty(t, m.recall(key(1), time.Now()))
	assert.NotEmpty(t, m.recall(key(10*memoGeneration-1), time.Now()))
	assert.Empty(t, (*chainMemo)(nil).recall(key(0), time.Now()))
	(*chainMemo)(nil).store(key(0), chains)
}
