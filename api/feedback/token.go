package feedback

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KeyBytes is the length of an edge's key.
const KeyBytes = 32

const (
	version = "v1"
	// maxTokenBytes is the longest token that is looked at. The longest that
	// Seal makes is a little over 1,200.
	maxTokenBytes = 2000
)

// The errors of reading a token. Neither says what the token contains.
var (
	// ErrMalformed is a text that is no token of ours.
	ErrMalformed = errors.New("not a feedback token of this platform")
	// ErrForged is a token that was changed, or sealed under another key.
	ErrForged = errors.New("feedback token does not match its key")
)

// Seal makes the token of one message under the key of the edge that relays it.
// Nonces are random: with one key for each edge, 2^32 messages of one edge keep
// the chance of a repeated nonce below 2^-32 (NIST SP 800-38D 8.3).
func Seal(key [KeyBytes]byte, edge string, c Claims) (string, error) {
	if !isEdgeID(edge) {
		return "", fmt.Errorf("seal feedback token: %q is no edge id", edge)
	}
	plain, err := c.encode()
	if err != nil {
		return "", fmt.Errorf("seal feedback token: %w", err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return "", fmt.Errorf("seal feedback token: %w", err)
	}
	sealed := aead.Seal(nil, nil, plain, additionalData(edge))
	return version + ":" + edge + ":" + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Edge returns the id of the edge that a token claims to come from. Nothing is
// proved before Open has succeeded under that edge's key.
func Edge(token string) (string, error) {
	edge, _, err := split(token)
	return edge, err
}

// Open returns the claims of a token, or ErrMalformed or ErrForged.
func Open(key [KeyBytes]byte, token string) (Claims, error) {
	edge, sealed, err := split(token)
	if err != nil {
		return Claims{}, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return Claims{}, fmt.Errorf("open feedback token: %w", err)
	}
	plain, err := aead.Open(nil, nil, sealed, additionalData(edge))
	if err != nil {
		return Claims{}, ErrForged
	}
	return decode(plain)
}

func newAEAD(key [KeyBytes]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func additionalData(edge string) []byte { return []byte(version + ":" + edge) }

func split(token string) (edge string, sealed []byte, err error) {
	if len(token) > maxTokenBytes {
		return "", nil, ErrMalformed
	}
	token = unfold(token)
	parts := strings.Split(token, ":")
	if len(parts) != 3 || parts[0] != version || !isEdgeID(parts[1]) {
		return "", nil, ErrMalformed
	}
	// Strict: without it the unused bits of the last character would give one
	// message several tokens.
	sealed, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(sealed) == 0 {
		return "", nil, ErrMalformed
	}
	return parts[1], sealed, nil
}

// isEdgeID admits the characters of our ids, which are all atext.
func isEdgeID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
