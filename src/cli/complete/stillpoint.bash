# bash completion for stillpoint, made by `stillpoint completions bash`.

_stillpoint() {
    # bash splits words at COMP_WORDBREAKS too: `--config=/etc` is three of its words. Here they are put together
    # again, up to the cursor.
    local rest=${COMP_LINE:0:COMP_POINT} at word trimmed
    local -a words=()
    for ((at = 0; at <= COMP_CWORD; at++)); do
        trimmed=${rest#"${rest%%[![:space:]]*}"}
        word=${COMP_WORDS[at]}
        if ((at == COMP_CWORD)); then word=$trimmed; fi
        if ((at == 0)) || [[ $trimmed != "$rest" ]]; then
            words+=("$word")
        else
            words[${#words[@]}-1]+=$word
        fi
        rest=${trimmed#"$word"}
    done
    # What comes before the part that bash replaces; of a quoted word, bash replaces what follows the quote.
    local whole=${words[${#words[@]}-1]}
    local before=${whole%"$2"}
    before=${before#[\"\']}
    before=${before%[\"\']}

    local -a said=()
    # By PATH and not by $1: a file of this folder may have the name.
    mapfile -t said < <(command stillpoint __complete bash -- "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    compopt -o nosort 2>/dev/null
    case ${said[0]-} in
    words)
        for word in "${said[@]:1}"; do
            if [[ $word == "$before"* ]]; then COMPREPLY+=("${word#"$before"}"); fi
        done
        ;;
    files) compopt -o default 2>/dev/null ;;
    folders) compopt -o dirnames 2>/dev/null ;;
    command)
        for ((at = 1; at < COMP_CWORD; at++)); do
            if [[ ${COMP_WORDS[at]} == -- ]]; then break; fi
        done
        if declare -F _comp_command_offset >/dev/null; then
            _comp_command_offset $((at + 1))
        elif declare -F _command_offset >/dev/null; then
            _command_offset $((at + 1))
        else
            compopt -o bashdefault -o default 2>/dev/null
        fi
        ;;
    esac
}

complete -F _stillpoint stillpoint
