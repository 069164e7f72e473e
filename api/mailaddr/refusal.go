package mailaddr

// Rule names the one thing that is wrong with a refused address. The values
// are stable: they appear in API problems as the rule of an invalid field.
type Rule string

// The rules, in the order in which a parse meets them.
const (
	RuleEmpty           Rule = "empty"
	RuleAddressTooLong  Rule = "address-too-long"
	RuleNeedsSMTPUTF8   Rule = "needs-smtputf8"
	RuleNotUTF8         Rule = "not-utf8"
	RuleControl         Rule = "control-character"
	RuleBrackets        Rule = "brackets"
	RuleSourceRoute     Rule = "source-route"
	RuleNoLocal         Rule = "no-local-part"
	RuleQuoted          Rule = "quoted"
	RuleRouting         Rule = "routing-character"
	RuleLocalTooLong    Rule = "local-part-too-long"
	RuleDots            Rule = "dots"
	RuleLocalCharacter  Rule = "local-part-character"
	RuleManyAts         Rule = "several-at-signs"
	RuleNoDomain        Rule = "no-domain"
	RuleLiteral         Rule = "address-literal"
	RuleDomainTooLong   Rule = "domain-too-long"
	RuleIDNA            Rule = "idna"
	RuleLabel           Rule = "label"
	RuleDomainCharacter Rule = "domain-character"
	RuleSingleLabel     Rule = "single-label"
	RuleHeaderTooLong   Rule = "header-too-long"
	RuleComment         Rule = "comment"
	RuleManyAddresses   Rule = "several-addresses"
	RuleGroup           Rule = "group"
)

// Refusal is the only error of this package. Its text never repeats the input,
// so it may be shown to anyone and written to any log.
type Refusal struct {
	Rule Rule
}

func refuse(rule Rule) error { return &Refusal{Rule: rule} }

// Error returns one plain clause that fits after "address not accepted: ".
func (r *Refusal) Error() string {
	if text, ok := ruleTexts()[r.Rule]; ok {
		return text
	}
	return string(r.Rule)
}

func ruleTexts() map[Rule]string {
	return map[Rule]string{
		RuleEmpty:           "the address is empty",
		RuleAddressTooLong:  "the address is longer than 254 octets",
		RuleNeedsSMTPUTF8:   "non-ASCII characters need SMTPUTF8",
		RuleNotUTF8:         "the address is not valid UTF-8",
		RuleControl:         "spaces and control characters are not allowed",
		RuleBrackets:        "angle brackets do not match",
		RuleSourceRoute:     "source routes are not supported",
		RuleNoLocal:         "the part before the @ is missing",
		RuleQuoted:          "quoted local parts are not supported",
		RuleRouting:         "% and ! are not allowed in the local part",
		RuleLocalTooLong:    "the local part is longer than 64 octets",
		RuleDots:            "dots must stand between other characters",
		RuleLocalCharacter:  "the local part has a character that is not allowed",
		RuleManyAts:         "there is more than one @",
		RuleNoDomain:        "the domain is missing",
		RuleLiteral:         "address literals are not supported",
		RuleDomainTooLong:   "the domain is longer than 253 octets",
		RuleIDNA:            "the domain is not a valid internationalised name",
		RuleLabel:           "each label of the domain needs 1 to 63 characters and no hyphen at its ends",
		RuleDomainCharacter: "the domain may hold letters, digits and hyphens only",
		RuleSingleLabel:     "the domain needs at least two labels",
		RuleHeaderTooLong:   "the header field is too long",
		RuleComment:         "a comment is not closed",
		RuleManyAddresses:   "there must be exactly one address",
		RuleGroup:           "address groups are not supported",
	}
}
