#compdef stillpoint
# zsh completion for stillpoint, made by `stillpoint completions zsh`.

_stillpoint() {
    local -a said values shown
    local line value help
    # compadd quotes what it puts into the line.
    said=("${(@f)$(command stillpoint __complete zsh -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $said[1] in
        (words)
            for line in "${(@)said[2,-1]}"; do
                value=${line%%$'\t'*}
                help=
                [[ $line == *$'\t'* ]] && help=${line#*$'\t'}
                values+=("$value")
                shown+=("${(r:28:)value}${help:+  $help}")
                (( $#value > 28 )) && shown[-1]="$value${help:+  $help}"
            done
            compadd -V stillpoint -l -d shown -a values
            ;;
        (files)
            compset -P '--*='
            _files
            ;;
        (folders)
            compset -P '--*='
            _files -/
            ;;
        (command)
            # The words from COMMAND on, as if they were all of the line.
            local at=${words[(i)--]}
            shift $at words
            (( CURRENT -= at ))
            _normal
            ;;
    esac
}

if [[ $funcstack[1] == _stillpoint ]]; then
    _stillpoint "$@"
else
    compdef _stillpoint stillpoint
fi
